"""`wuerstchen compare`: measured results side by side, if they may be compared."""

from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

EPILOG = "wuerstchen compare mine/distance.json theirs/distance.json --against sd-1.4,sd-2.1"


def compare(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="distance.json or alignment.json files."),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Published figures: all, or such as sd-1.4,sd-2.1."),
    ] = None,
) -> None:
    """Put results side by side; refuse those that were measured in different ways.

    The protocols must agree in everything but the drawn images: the error names what differs.
    Alignments are compared prompt by prompt, with a paired bootstrap, and by category.
    Published figures of distances are shown with their source, and with what keeps them from
    being compared.
    """
    from wuerstchen.evaluation import records as results
    from wuerstchen.evaluation.distances import published

    if len({str(path) for path in records}) < len(records):
        raise ConfigError("Expected different files to compare, found one of them twice.")
    chosen = published.choose(against) if against is not None else []
    for line in list(results.compare(records, chosen)):
        print(printable(line))
