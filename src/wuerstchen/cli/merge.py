"""`wuerstchen merge`: two models to the one between them."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = "wuerstchen merge models/base models/art models/both --share 0.5"


def merge(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A model folder or file, or a hub id (owner/name).")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one of the same sizes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to write.")],
    share: Annotated[
        float, typer.Option(help="Of B: 0 is A, 1 is B; the published Stage C is such a half.")
    ] = 0.5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace parts that are at OUT already.")
    ] = False,
) -> None:
    """Mix the weights of two models, number by number: one and its fine-tuning, for example.

    Parts that B lacks are those of A; so B may also be a prior or a single part. What both cost
    goes into the receipt of OUT. The folders that were written go to stdout.
    """
    from wuerstchen import weights  # torch loads here, and not for --help
    from wuerstchen.receipts import adopt_models

    path, parts = weights.resolve_components(first)
    other, others = weights.resolve_components(second)
    written = weights.merge(parts, others, out, share, source=path, overwrite=overwrite)
    adopt_models([model_of(path), model_of(other)], out)
    for target in written:
        typer.echo(target)


def model_of(path: Path) -> Path:
    """The model whose receipt tells of `path`: where that is a part in a folder, the folder."""
    from wuerstchen.weights.layout import FOLDERS

    place = path.resolve().parent if path.is_file() else path.resolve()
    return place.parent if place.name in FOLDERS else path
