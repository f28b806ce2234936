"""Numbers, tables and pages in Markdown."""

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from statistics import median

from benchmarks.records import Run
from wuerstchen.atomic_write import write_file

NO_ROWS = "Not measured yet.\n"


def digits(value: float) -> str:
    """At least three digits, and never an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def rounded_up(value: float) -> str:
    """Three digits, never less than the value, so that a missed goal never looks reached."""
    if value <= 0:
        return "0"
    if value >= 100:
        return str(ceil(value))
    power = 0
    while value * 10**power < 100:
        power += 1
    return f"{ceil(value * 10**power * (1 - 1e-12)) / 10**power:.{3}g}"


def median_and_range(samples: Sequence[float]) -> str:
    """The median, with minimum and maximum."""
    return f"{digits(median(samples))} ({digits(min(samples))} to {digits(max(samples))})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Lines of a table, or of a sentence if there are no rows."""
    if not rows:
        yield NO_ROWS
        return
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def machine(run: Run) -> str:
    """When, with which code and on which machine a run was made."""
    return f"{run.date}, commit {run.commit}, {run.cpu}, {run.threads} threads, torch {run.torch}"


def save_page(path: Path, title: str, command: str, lines: Iterable[str]) -> Path:
    """A page with a heading and the command that writes it; returns its path."""
    head = (
        f"# {title}, measured\n",
        f"Written by `python -m {command}`; its docstring explains how.\n",
    )
    write_file(path, "\n".join([*head, *lines]).encode())
    return path
