"""The plots of the report, readable without colour by markers and line styles.

Colours are those of Okabe and Ito (2008), "Color Universal Design".
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # no window

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.figures import Figures
from benchmarks.networks import STAGES
from benchmarks.schedules import FIFTY, SIXTY, Schedule, our_defaults
from wuerstchen.atomic_write import write_file


class Line(NamedTuple):
    """The style of a system."""

    label: str
    system: str
    schedule: Schedule
    colour: str
    marker: str
    style: str


def lines() -> list[Line]:
    """The systems of the plots; ours last, so that it is on top."""
    own = our_defaults()
    found = [
        Line(f"SDXL, {FIFTY.name} steps", "sdxl", FIFTY, "#CC79A7", "D", ":"),
        Line(f"Stable Diffusion 2.1, {FIFTY.name} steps", "sd21", FIFTY, "#E69F00", "^", "-."),
        Line(f"diffusers, {SIXTY.name} steps", "diffusers", SIXTY, "#000000", "s", "--"),
    ]
    if own.work != SIXTY.work:
        found.append(Line(f"ours, {SIXTY.name} steps", "ours", SIXTY, "#56B4E9", "v", "--"))
    return [*found, Line(f"ours, defaults ({own.name})", "ours", own, "#0072B2", "o", "-")]


def write_plots(figures: Figures, out: Path) -> list[Path]:
    """Write the plots for which there are figures; returns their paths."""
    written: list[Path] = []
    for name, plot in (
        ("operations-per-image", _operations),
        ("seconds-per-image", _seconds),
        ("share-of-diffusers", _shares),
    ):
        path = out / f"{name}.png"
        if _save(path, plot, figures):
            written.append(path)
        else:
            path.unlink(missing_ok=True)  # from figures that no longer exist
    return written


def _save(path: Path, plot: Callable[[Axes, Figures], bool], figures: Figures) -> bool:
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    if not plot(figure.subplots(), figures):
        return False
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    write_file(path, content.getvalue())
    return True


def _operations(axes: Axes, figures: Figures) -> bool:
    sides = sorted({each.side for each in figures.counts})
    has_data = False
    for line in lines():
        points = [(s, figures.image_flops(line.system, line.schedule, s)) for s in sides]
        known = [(side, count / 1e12) for side, count in points if count is not None]
        if known:
            _line(axes, line, [side for side, _ in known], [count for _, count in known])
            has_data = True
    _label(axes, sides, "TFLOP per image")
    return has_data


def _seconds(axes: Axes, figures: Figures) -> bool:
    """Filled markers: all calls were measured at this side. Hollow: scaled by operations."""
    sides = sorted({each.side for each in figures.counts})
    has_data = False
    for line in lines():
        points = [(s, figures.image(line.system, line.schedule, s)) for s in sides]
        known = [(side, each) for side, each in points if each is not None]
        if not known:
            continue
        has_data = True
        _line(axes, line, [side for side, _ in known], [each.value for _, each in known])
        hollow = [(side, each.value) for side, each in known if each.how == "scaled"]
        if hollow:
            axes.plot(
                [side for side, _ in hollow],
                [value for _, value in hollow],
                line.marker,
                markerfacecolor="white",
                markeredgecolor=line.colour,
            )
    _label(axes, sides, "seconds per image on the CPU, fp32")
    axes.set_title("filled: composed of measured calls; hollow: scaled by operations", fontsize=9)
    return has_data


def _shares(axes: Axes, figures: Figures) -> bool:
    """Bars per call and side: our time over diffusers', with the range over the turns."""
    styles = {
        "stage_c": ("#56B4E9", ""),
        "stage_b": ("#0072B2", "//"),
        "stage_a": ("#E69F00", ".."),
    }
    names = {"stage_c": "Stage C step", "stage_b": "Stage B step", "stage_a": "Stage A decode"}
    sides = sorted({each.side for each in figures.times if each.part in STAGES})
    has_data = False
    for place, part in enumerate(STAGES):
        rows = 2 if part == "stage_c" else 1
        found = [(n, figures.ratio(part, "step", side, rows)) for n, side in enumerate(sides)]
        known = [(index, each) for index, each in found if each is not None]
        if not known:
            continue
        has_data = True
        colour, hatch = styles[part]
        axes.bar(
            [index + 0.27 * (place - 1) for index, _ in known],
            [each.value for _, each in known],
            width=0.25,
            color=colour,
            hatch=hatch,
            edgecolor="black",
            label=names[part],
            yerr=[
                [max(0.0, each.value - each.low) for _, each in known],
                [max(0.0, each.high - each.value) for _, each in known],
            ],
            capsize=3,
        )
    axes.axhline(1, color="black", linestyle="--", linewidth=1, label="diffusers")
    axes.set_xticks(range(len(sides)), [str(side) for side in sides])
    axes.set_xlabel("side of the image in pixels")
    axes.set_ylabel("our time / diffusers' time, CPU, fp32")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    return has_data


def _line(axes: Axes, line: Line, sides: Sequence[int], values: Sequence[float]) -> None:
    axes.plot(
        sides,
        values,
        color=line.colour,
        marker=line.marker,
        linestyle=line.style,
        label=line.label,
    )


def _label(axes: Axes, sides: Sequence[int], what: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(sides), [str(side) for side in sides])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("side of the image in pixels")
    axes.set_ylabel(what)
    axes.grid(visible=True, which="both", alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
