"""The goals, and whether the unrounded figures reach them."""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from benchmarks.figures import CPU, Backend, Figures
from benchmarks.schedules import SIXTY, our_defaults
from benchmarks.tables import digits, rounded_up

SIDE = 1024
"""Image side of the goals."""


class Found(NamedTuple):
    value: float
    note: str = ""


class Goal(NamedTuple):
    """A figure and its upper limit."""

    figure: str
    limit: float
    unit: str
    find: Callable[[Figures], Found | None]


class Row(NamedTuple):
    """A row of the table."""

    figure: str
    goal: str
    measured: str
    reached: str


def _call(part: str, rows: int) -> Callable[[Figures], Found | None]:
    def find(figures: Figures) -> Found | None:
        found = figures.ratio(part, "step", SIDE, rows)
        return found and Found(found.value, f"turns {digits(found.low)} to {digits(found.high)}")

    return find


def _image(figures: Figures) -> Found | None:
    ours, theirs = (figures.image(system, SIXTY, SIDE) for system in ("ours", "diffusers"))
    if ours is None or theirs is None:
        return None
    return Found(ours.value / theirs.value, f"{SIXTY.name} steps, {ours.how}")


def _defaults(figures: Figures) -> Found | None:
    ours = figures.image("ours", our_defaults(), SIDE)
    theirs = figures.image("diffusers", SIXTY, SIDE)
    if ours is None or theirs is None:
        return None
    note = f"{our_defaults().name} against {SIXTY.name} steps, {ours.how}"
    return Found(ours.value / theirs.value, note)


def _operations(figures: Figures) -> Found | None:
    found = figures.image_flops("ours", our_defaults(), SIDE)
    return None if found is None else Found(found / 1e12, f"{our_defaults().name} steps")


def _accelerated(mode: str) -> Callable[[Figures], Found | None]:
    """bf16, batch 1, ours compiled over diffusers in a mode: whole images, or else composed."""

    def find(figures: Figures) -> Found | None:
        ours_how, their_how = (Backend("cuda", "bfloat16", each) for each in ("compiled", mode))
        ours = figures.whole(SIXTY, SIDE, ours_how, 1)[0]
        theirs = figures.whole(SIXTY, SIDE, their_how, 1)[1]
        if ours and theirs:
            return Found(median(ours) / median(theirs), f"{SIXTY.name} steps, measured")
        first = figures.image("ours", SIXTY, SIDE, ours_how)
        second = figures.image("diffusers", SIXTY, SIDE, their_how)
        if first is None or second is None:
            return None
        return Found(first.value / second.value, f"{SIXTY.name} steps, {first.how}")

    return find


def _equal(figures: Figures) -> Found | None:
    worst = figures.worst_difference()
    return None if worst is None else Found(worst, "largest of the table below")


_ON_CPU = f"{CPU.device.upper()}, fp32, {SIDE} pixels, fraction of diffusers' time"
GOALS = (
    Goal(f"Stage B step ({_ON_CPU})", 0.70, "", _call("stage_b", 1)),
    Goal(f"Stage A decode ({_ON_CPU})", 0.60, "", _call("stage_a", 1)),
    Goal(f"Stage C step ({_ON_CPU})", 0.95, "", _call("stage_c", 2)),
    Goal(f"whole image, same sampler and steps ({_ON_CPU})", 0.85, "", _image),
    Goal(f"whole image at our defaults ({_ON_CPU} at its defaults)", 0.25, "", _defaults),
    Goal(f"operations per {SIDE} image at our defaults", 40.0, " TFLOP", _operations),
    Goal(
        "accelerator, bf16, batch 1, whole image, ours compiled, fraction of diffusers eager",
        0.40,
        "",
        _accelerated("eager"),
    ),
    Goal(
        "accelerator, the same, fraction of diffusers compiled", 0.85, "", _accelerated("compiled")
    ),
    Goal("largest difference of output at equal settings, fp32", 1e-4, "", _equal),
)


def judge(figures: Figures) -> list[Row]:
    """Every goal with its figure."""
    return [_row(goal, goal.find(figures)) for goal in GOALS]


def _row(goal: Goal, found: Found | None) -> Row:
    limit = f"at most {goal.limit:g}{goal.unit}"
    if found is None:
        return Row(goal.figure, limit, "not measured", "-")
    shown = f"{rounded_up(found.value)}{goal.unit}"
    measured = f"{shown} ({found.note})" if found.note else shown
    return Row(goal.figure, limit, measured, "yes" if found.value <= goal.limit else "**missed**")
