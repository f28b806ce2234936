"""`wuerstchen receipt`: what models cost, beside each other and beside published ones."""

import math
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.errors import ConfigError, ModelFolderError

EPILOG = "wuerstchen receipt models/tiny --price 1.79 --against sd-2.1"


def receipt(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL_OR_RUN...",
            help="Model folders, runs in them (models/tiny/runs/c), or prepared sets.",
        ),
    ],
    price: Annotated[
        float | None, typer.Option(min=0, help="Money for an hour of one device.")
    ] = None,
    per_kwh: Annotated[
        float | None, typer.Option("--price-kwh", min=0, help="Money for a kWh, beside that.")
    ] = None,
    currency: Annotated[
        str | None, typer.Option(metavar="WORD", help="Of both prices; else USD.")
    ] = None,
    country: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="Where the electricity is taken from: three letters of ISO 3166, such as DEU, or "
            "world; else what each phase said.",
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Published receipts, with commas; all; none; else both of Würstchen v2, SD 1.4 "
            "and SD 2.1.",
            show_default=False,
        ),
    ] = "wuerstchen-v2,wuerstchen-v2-b,sd-1.4,sd-2.1",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="For programs: the receipts, their sum and published ones."),
    ] = False,
) -> None:
    """Add up what was measured, write receipt.json and receipt.html into the folders, and compare.

    Everything counts: data preparation, encoding, evaluation, and failed tries. Prices and country
    stay in a receipt until others are given. The table goes to stdout.
    """
    from wuerstchen.receipts.carbon import country_code, grams_per_kwh
    from wuerstchen.receipts.folder import kept_terms, open_receipt, write_receipts
    from wuerstchen.receipts.format_text import tell, to_json
    from wuerstchen.receipts.published import choose
    from wuerstchen.receipts.receipt import Terms, add_receipts, check_alike

    published = choose(against)
    if country:
        country = country_code(country)
        grams_per_kwh(country)
    given = {
        "per_device_hour": price,
        "per_kwh": per_kwh,
        "currency": currency,
        "country": country,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    for option, number in (("--price", price), ("--price-kwh", per_kwh)):
        if number is not None and not math.isfinite(number):
            raise ConfigError(f"{option} must be a finite number, found {number}.")
    for folder in folders:
        _check_measured(folder)
    all_terms = [
        Terms.model_validate({**kept_terms(folder).model_dump(), **changes}) for folder in folders
    ]
    check_alike(all_terms)
    found = [
        write_receipts(folder, terms) or open_receipt(folder, terms)
        for folder, terms in zip(folders, all_terms, strict=True)
    ]
    together = add_receipts("together", found, found[0].terms) if len(found) > 1 else None
    if as_json:
        typer.echo(to_json(found, together, published))
    else:
        typer.echo(tell([*found, *([together] if together else [])], published))


def _check_measured(folder: Path) -> None:
    """Raise ModelFolderError for the bundled model, which all commands but this one know."""
    from wuerstchen.weights.hub import BUNDLED, find

    named = str(folder) == BUNDLED and not folder.exists()
    if named or folder.resolve() == find(None).resolve():
        raise ModelFolderError(
            f"{folder}: the bundled model has no receipt, as it was trained before there were any; "
            "docs/models/emoji.md says how many hours it took."
        )
