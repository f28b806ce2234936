"""Plots of a study as SVG: shares of votes as bars, estimates with intervals as points."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from wuerstchen.study.proportions import Interval

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#bbbbbb"
NAME, PLOT, LINE, TEXT = 270, 420, 26, 190
"""Pixels of the names, of the plot, of a line, and of the figures behind it."""


class Share(NamedTuple):
    """Votes between two systems."""

    name: str
    wins: int
    ties: int
    losses: int


class Point(NamedTuple):
    """An estimate with its interval."""

    name: str
    value: float
    interval: Interval | None
    text: str
    """The figures, printed behind the plot."""


def share_bars(title: str, shares: Sequence[Share]) -> str:
    """A bar of wins, ties and losses for each pair of systems, in percent."""
    lines = []
    for row, share in enumerate(shares):
        total, x, y = share.wins + share.ties + share.losses, float(NAME), row * LINE
        lines.append(_name(share.name, y))
        parts = (
            (share.wins, BLUE, "#fff"),
            (share.ties, GREY, "#000"),
            (share.losses, ORANGE, "#fff"),
        )
        for count, colour, ink in parts:
            width = PLOT * count / total
            lines.append(
                f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="20" fill="{colour}"/>'
            )
            if width > 34:
                label = f"{100 * count / total:.0f} %"
                lines.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 18}" text-anchor="middle" '
                    f'fill="{ink}">{label}</text>'
                )
            x += width
        lines.append(f'<text x="{NAME + PLOT + 8}" y="{y + 18}">{total:,} votes</text>')
    return _svg(title, lines, len(shares) * LINE)


def points(
    title: str, rows: Sequence[Point], low: float, high: float, marks: Sequence[float], form: str
) -> str:
    """Points with intervals on a scale from `low` to `high`; `marks` are labelled with `form`."""

    def at(value: float) -> float:
        return NAME + PLOT * (min(max(value, low), high) - low) / (high - low)

    height, lines = len(rows) * LINE, []
    for mark in marks:
        lines.append(
            f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="0" y2="{height + 4}" '
            f'stroke="#ddd"/><text x="{at(mark):.1f}" y="{height + 18}" '
            f'text-anchor="middle">{format(mark, form)}</text>'
        )
    for row, point in enumerate(rows):
        y = row * LINE + 13
        lines.append(_name(point.name, row * LINE))
        if point.interval is not None:
            start, end = map(at, point.interval)
            lines.append(
                f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}" stroke="{BLUE}" '
                'stroke-width="3"/>'
            )
        lines.append(f'<circle cx="{at(point.value):.1f}" cy="{y}" r="5" fill="{BLUE}"/>')
        lines.append(f'<text x="{NAME + PLOT + 8}" y="{y + 5}">{html.escape(point.text)}</text>')
    return _svg(title, lines, height + 22)


def _name(name: str, y: float) -> str:
    short = name if len(name) <= 40 else name[:39] + "…"
    return f'<text x="{NAME - 10}" y="{y + 18}" text-anchor="end">{html.escape(short)}</text>'


def _svg(title: str, lines: Sequence[str], height: float) -> str:
    width = NAME + PLOT + TEXT
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width} {height:.0f}" '
        f'width="{width}">{"".join(lines)}</svg>'
    )
