"""Numbers and tables of the report in Markdown."""

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import median

NOTHING = "Not measured yet.\n"


def digits(value: float) -> str:
    """Three digits or more, and never an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def upwards(value: float) -> str:
    """Three digits, never less than the value: a missed goal does not look reached."""
    if value <= 0:
        return "0"
    if value >= 100:
        return str(ceil(value))
    power = 0
    while value * 10**power < 100:
        power += 1
    return f"{ceil(value * 10**power * (1 - 1e-12)) / 10**power:.{3}g}"


def spread(seconds: Sequence[float]) -> str:
    """The median, with the least and the most."""
    return f"{digits(median(seconds))} ({digits(min(seconds))} to {digits(max(seconds))})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Lines of a table; of a sentence where there is nothing to show."""
    if not rows:
        yield NOTHING
        return
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
