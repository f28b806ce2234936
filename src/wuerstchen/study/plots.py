"""Plots of a study as SVG: shares of votes as bars, estimates with intervals as points."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from wuerstchen.study.proportions import Interval

BLUE, RED, GREY = "#0072B2", "#D55E00", "#bbbbbb"
WIDTH, LINE, EDGE = 460, 44, 20
"""Pixels of a plot, of a row (a line of text and the bar below), and beside the scale."""

MAX_NAME = 38
"""Characters."""


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
    """The figures, printed beside the name."""


def share_bars(title: str, shares: Sequence[Share]) -> str:
    """A bar of wins, ties and losses for each pair of systems, in percent."""
    lines = []
    for row, share in enumerate(shares):
        total, x, y = share.wins + share.ties + share.losses, 0.0, row * LINE
        lines.append(_text(share.name, f"{total:,} votes", y))
        parts = (
            (share.wins, BLUE, "#fff"),
            (share.ties, GREY, "#000"),
            (share.losses, RED, "#fff"),
        )
        for count, colour, ink in parts:
            width = WIDTH * count / total
            lines.append(
                f'<rect x="{x:.1f}" y="{y + 18}" width="{width:.1f}" height="20" fill="{colour}"/>'
            )
            if width > 34:
                lines.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 33}" text-anchor="middle" '
                    f'fill="{ink}">{100 * count / total:.0f} %</text>'
                )
            x += width
    return _svg(title, lines, len(shares) * LINE)


def points(
    title: str, rows: Sequence[Point], low: float, high: float, marks: Sequence[float], form: str
) -> str:
    """Points with intervals on a scale from `low` to `high`; `marks` are labelled with `form`."""

    def at(value: float) -> float:
        part = (min(max(value, low), high) - low) / (high - low)
        return EDGE + (WIDTH - 2 * EDGE) * part

    height, lines = len(rows) * LINE, []
    for mark in marks:
        x = f"{at(mark):.1f}"
        lines.append(
            f'<line x1="{x}" x2="{x}" y1="0" y2="{height}" stroke="#ddd"/>'
            f'<text x="{x}" y="{height + 16}" text-anchor="middle">{format(mark, form)}</text>'
        )
    for row, point in enumerate(rows):
        y = row * LINE + 28
        lines.append(_text(point.name, point.text, row * LINE))
        if point.interval is not None:
            start, end = map(at, point.interval)
            lines.append(
                f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}" stroke="{BLUE}" '
                'stroke-width="3"/>'
            )
        lines.append(f'<circle cx="{at(point.value):.1f}" cy="{y}" r="5" fill="{BLUE}"/>')
    return _svg(title, lines, height + 22)


def _text(name: str, figures: str, y: float) -> str:
    """Name and figures of a row, on a white ground so that no mark runs through them."""
    short = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
    return (
        f'<rect x="0" y="{y}" width="{WIDTH}" height="17" fill="#fff"/>'
        f'<text x="0" y="{y + 13}">{html.escape(short)}</text>'
        f'<text x="{WIDTH}" y="{y + 13}" text-anchor="end">{html.escape(figures)}</text>'
    )


def _svg(title: str, lines: Sequence[str], height: float) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}">{"".join(lines)}</svg>'
    )
