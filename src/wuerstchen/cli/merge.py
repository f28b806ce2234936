"""`wuerstchen merge`: merge two models of the same sizes."""

from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.options import tell
from wuerstchen.terminal import print_path

EPILOG = "wuerstchen merge models/base models/art models/both --fraction 0.5"


def merge(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A model folder or file, or a hub id (owner/name).")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one of the same sizes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to write.")],
    fraction: Annotated[
        float,
        typer.Option(
            "--fraction",
            help="Fraction of B: 0 is A, 1 is B; the published Stage C is a merge at 0.5.",
        ),
    ] = 0.5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace components that exist at OUT.")
    ] = False,
) -> None:
    """Interpolate the weights of two models, such as one and its fine-tuning.

    Components that B lacks are copied from A, so B may also be a prior or a single component. The
    receipt of OUT includes the costs of both. Written folders are printed to stdout.
    """
    from wuerstchen import weights  # not at the top, so that --help is fast
    from wuerstchen.receipts import adopt_models

    path, components = weights.resolve_components(first, tell=tell)
    other, other_components = weights.resolve_components(second, tell=tell)
    written = weights.merge(
        components,
        other_components,
        out,
        fraction,
        source=path,
        others=[other],
        overwrite=overwrite,
    )
    adopt_models([model_of(path), model_of(other)], out)
    if others := weights.left_out(path, components):
        tell(f"Not carried over from {path}: {weights.listed(others)}.")
    for target in written:
        print_path(target)


def model_of(path: Path) -> Path:
    """The model folder whose receipt includes `path`, which may be one of its components."""
    from wuerstchen.weights.layout import FOLDERS

    folder = path.resolve().parent if path.is_file() else path.resolve()
    return folder.parent if folder.name in FOLDERS else path
