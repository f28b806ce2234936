"""`wuerstchen compare`: measured distances side by side, if they may be compared."""

from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

EPILOG = "wuerstchen compare mine/distance.json theirs/distance.json --against sd-1.4,sd-2.1"


def compare(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files that `wuerstchen distance` wrote."),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Published figures: all, or such as sd-1.4,sd-2.1."),
    ] = None,
) -> None:
    """Put distances side by side; refuse those that were measured in different ways.

    The protocols must agree in everything but the drawn images: the error names what differs.
    Published figures are shown with their source, and with what keeps them from being compared.
    """
    from wuerstchen.evaluation.distances import comparison, published

    if len({str(path) for path in records}) < len(records):
        raise ConfigError("Expected different files to compare, found one of them twice.")
    chosen = published.choose(against) if against is not None else []
    found = {str(path): comparison.read_record(path) for path in records}
    comparison.check_alike(found)
    for line in comparison.lines(found):
        print(printable(line))
    for line in published.lines(chosen, next(iter(found.values())).protocol):
        print(printable(line))
