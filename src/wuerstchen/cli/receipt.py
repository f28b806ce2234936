"""`wuerstchen receipt`: what models cost, compared with each other and with published costs."""

import math
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.errors import ConfigError, ModelFolderError

BUNDLED = Path(__file__).parents[1] / "bundled" / "stickers"
"""As in weights.hub, which would load torch."""

EPILOG = "wuerstchen receipt models/tiny --price 1.79 --against sd-2.1"


def receipt(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL_OR_RUN...",
            help="Model folders, their runs (models/tiny/runs/c), or prepared sets.",
        ),
    ],
    price: Annotated[
        float | None, typer.Option(min=0, help="Price per hour of one device.")
    ] = None,
    per_kwh: Annotated[
        float | None, typer.Option("--price-kwh", min=0, help="Additional price per kWh.")
    ] = None,
    currency: Annotated[
        str | None, typer.Option(metavar="WORD", help="Currency of both prices; default USD.")
    ] = None,
    country: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="Country of the electricity: three letters of ISO 3166, such as DEU, or world; "
            "by default the one recorded in each phase.",
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Published receipts to compare with, separated by commas; all; none; by default "
            "both of Würstchen v2, SD 1.4 and SD 2.1.",
            show_default=False,
        ),
    ] = "wuerstchen-v2,wuerstchen-v2-b,sd-1.4,sd-2.1",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON: the receipts, their sum and the published ones."),
    ] = False,
) -> None:
    """Sum up measured costs, write receipt.json and receipt.html into the folders, and compare.

    Data preparation, encoding, evaluation and failed attempts are included. Prices and country are
    kept in a receipt until others are given. The table goes to stdout.
    """
    from wuerstchen.receipts import table
    from wuerstchen.receipts.carbon import country_code, grams_per_kwh
    from wuerstchen.receipts.folder import open_receipt, saved_tariff, write_receipts
    from wuerstchen.receipts.published import choose
    from wuerstchen.receipts.receipt import Tariff, add_receipts, check_same_tariff

    published = choose(against)
    if country:
        country = country_code(country)
        grams_per_kwh(country)
    for option, number in (("--price", price), ("--price-kwh", per_kwh)):
        if number is not None and not math.isfinite(number):
            raise ConfigError(f"{option} must be a finite number, found {number}.")
    given = {"per_device_hour": price, "per_kwh": per_kwh, "currency": currency, "country": country}
    changes = {key: value for key, value in given.items() if value is not None}
    for folder in folders:
        _check_not_bundled(folder)
    saved = [saved_tariff(folder).model_dump() for folder in folders]
    tariffs = [Tariff.model_validate(values | changes) for values in saved]
    check_same_tariff(tariffs)
    found = [
        write_receipts(folder, tariff) or open_receipt(folder, tariff)
        for folder, tariff in zip(folders, tariffs, strict=True)
    ]
    together = add_receipts("together", found, tariffs[0]) if len(found) > 1 else None
    if as_json:
        typer.echo(table.as_json(found, together, published))
    else:
        typer.echo(table.as_text([*found, together] if together else found, published))


def _check_not_bundled(folder: Path) -> None:
    bundled = BUNDLED.resolve()
    named = str(folder) == bundled.name and not folder.exists()
    if named or folder.resolve() == bundled:
        raise ModelFolderError(
            f"{folder}: the bundled model has no receipt, because its training kept none; "
            "docs/models/stickers.md says how long it took."
        )
