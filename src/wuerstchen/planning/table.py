"""A plan as lines of text, in 100 columns."""

import textwrap
from collections.abc import Sequence

from wuerstchen.planning.devices import GIB
from wuerstchen.planning.estimate import Costs
from wuerstchen.planning.plan import Plan, StepPlan
from wuerstchen.receipts.number_format import (
    format_hours,
    format_kg,
    format_kwh,
    format_number,
    with_unit,
)

NAME, COLUMN = 31, 12

MIB = 2**20

PARTS = ("weights", "gradients", "optimizer", "averages", "exchange", "frozen", "activations")

Row = tuple[str, list[str]]
"""What it is, and what it is for each training."""


def lines(plan: Plan) -> list[str]:
    """The table, a column for each training, then what all of it costs and rests on."""
    found = [_title(plan), ""]
    steps = plan.steps
    if steps:
        found += _table(plan)
    for stage, folder in plan.taken_over.items():
        found.append(f"Stage {stage} is taken over from {folder} as it is.")
    found += ["", "Together: " + ", ".join(_costs(plan.costs)) + ".", ""] if steps else [""]
    found += ["This rests on:", *_listed(plan.words)]
    return [line.rstrip() for line in found]


def _title(plan: Plan) -> str:
    given = plan.assumptions
    memory = given.device.memory if given.memory is None else given.memory
    number = "1 device" if given.devices == 1 else f"{given.devices} devices"
    return f"{plan.name} on {number} {given.device.name} with {memory / GIB:.4g} GiB each"


def _table(plan: Plan) -> list[str]:
    found = []
    for name, cells in (*_work_rows(plan), *_memory_rows(plan), *_cost_rows(plan)):
        found.append(f"{name:<{NAME}}" + "".join(f" {cell:>{COLUMN}}" for cell in cells))
    return found


def _work_rows(plan: Plan) -> list[Row]:
    steps = plan.steps
    drawn = [("FLOPs before, drawing a class", [count(step.once) for step in steps])]
    if not any(step.once for step in steps):
        drawn = []
    return [
        ("stage", [step.step for step in steps]),
        ("images", [f"{step.images:,}" for step in steps]),
        ("numbers", ["bf16" if step.bf16 else "fp32" for step in steps]),
        ("parameters that learn", [count(step.trained) for step in steps]),
        ("frozen parameters", [count(step.frozen) for step in steps]),
        ("FLOPs an image: forward", [count(step.flops["forward"]) for step in steps]),
        ("  backward", [count(step.flops["backward"]) for step in steps]),
        ("  frozen encoders", [count(step.flops["frozen"]) for step in steps]),
        *drawn,
        ("batch", [f"{step.batch:,}" for step in steps]),
        ("  devices x accumulate x micro", [_product(step, plan) for step in steps]),
        ("spread by", [_spread(step, plan) for step in steps]),
    ]


def _memory_rows(plan: Plan) -> list[Row]:
    steps = plan.steps
    large = max(step.memory.total for step in steps) >= GIB
    word, unit = ("GiB", GIB) if large else ("MiB", MIB)

    def row(name: str, sizes: list[int]) -> Row:
        shown = [size / unit for size in sizes]
        return name, [f"{size:,.0f}" if size >= 1000 else f"{size:.2f}" for size in shown]

    return [
        row(f"{word} on a device", [step.memory.total for step in steps]),
        *(row(f"  {part}", [getattr(step.memory, part) for step in steps]) for part in PARTS),
        row(f"{word} to plan with", [step.room for step in steps]),
        ("fits", ["yes" if step.fits else "no" for step in steps]),
    ]


def _cost_rows(plan: Plan) -> list[Row]:
    each = [step.costs for step in plan.steps]
    rows = [
        ("hours", [format_hours(costs.hours) for costs in each]),
        ("device hours", [format_hours(costs.device_hours) for costs in each]),
        ("kWh", [format_kwh(costs.kwh) for costs in each]),
        ("kg CO2", [format_kg(costs.co2) for costs in each]),
    ]
    if plan.assumptions.price is not None:
        rows.append(("money", [format_number(costs.money or 0) for costs in each]))
    return rows


def count(number: float) -> str:
    """Three digits and a unit: 994 M, 3.46 T."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _product(step: StepPlan, plan: Plan) -> str:
    return f"{plan.assumptions.devices}x{step.accumulate}x{step.micro}"


def _spread(step: StepPlan, plan: Plan) -> str:
    if plan.assumptions.devices == 1:
        return "-"
    return "FSDP2" if step.sharded else "DDP"


def _costs(costs: Costs) -> list[str]:
    found = [
        with_unit(format_hours(costs.hours), "hours"),
        f"{with_unit(format_hours(costs.device_hours), 'hours')} of devices",
        with_unit(format_kwh(costs.kwh), "kWh"),
        f"{with_unit(format_kg(costs.co2), 'kg')} CO2",
    ]
    if costs.money is not None:
        found.append(f"money {format_number(costs.money)}")
    return found


def _listed(sentences: Sequence[str]) -> list[str]:
    """Points of a list, wrapped."""
    found: list[str] = []
    for sentence in sentences:
        found += textwrap.wrap(sentence, 100, initial_indent="- ", subsequent_indent="  ")
    return found
