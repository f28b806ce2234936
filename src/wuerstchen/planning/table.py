"""Prints a plan in 100 columns."""

import textwrap
from dataclasses import fields

from wuerstchen.hardware import GIB, MIB
from wuerstchen.planning.estimate import Costs
from wuerstchen.planning.memory import Memory
from wuerstchen.planning.plan import Plan
from wuerstchen.receipts.number_format import (
    format_hours,
    format_kg,
    format_kwh,
    format_number,
    with_unit,
)

NAME, COLUMN = 32, 12

Row = tuple[str, list[str]]
"""A label, and a cell for each training."""


def lines(plan: Plan) -> list[str]:
    """The table, a column for each training, then the costs and assumptions of all."""
    found = [_title(plan), ""]
    if plan.runs:
        found += _table(plan)
    for stage, base in plan.reused.items():
        found.append(f"Stage {stage} is copied from {base} unchanged.")
    found += ["", "Together: " + ", ".join(_costs(plan.costs)) + ".", ""] if plan.runs else [""]
    found.append("Assumptions:")
    for note in plan.notes:
        found += textwrap.wrap(note, 100, initial_indent="- ", subsequent_indent="  ")
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
    runs, devices = plan.runs, plan.assumptions.devices
    splits = [f"{devices}x{run.accumulation}x{run.micro}" for run in runs]
    whole = "-" if devices == 1 else "DDP"
    of_class = [("FLOPs to generate a class", [count(run.class_flops) for run in runs])]
    if not any(run.class_flops for run in runs):
        of_class = []
    return [
        ("stage", [run.name for run in runs]),
        ("images", [f"{run.images:,}" for run in runs]),
        ("precision", ["bf16" if run.bf16 else "fp32" for run in runs]),
        ("trained parameters", [count(run.trained) for run in runs]),
        ("frozen parameters", [count(run.frozen) for run in runs]),
        ("FLOPs per image: forward", [count(run.flops["forward"]) for run in runs]),
        ("  backward", [count(run.flops["backward"]) for run in runs]),
        ("  frozen encoders", [count(run.flops["frozen"]) for run in runs]),
        *of_class,
        ("batch", [f"{run.batch:,}" for run in runs]),
        ("  devices x accumulation x micro", splits),
        ("distributed by", ["FSDP2" if run.sharded else whole for run in runs]),
    ]


def _memory_rows(plan: Plan) -> list[Row]:
    runs = plan.runs
    large = max(run.memory.total for run in runs) >= GIB
    uses = [field.name for field in fields(Memory)]
    unit_name, unit = ("GiB", GIB) if large else ("MiB", MIB)

    def row(name: str, sizes: list[int]) -> Row:
        shown = [size / unit for size in sizes]
        return name, [f"{size:,.0f}" if size >= 1000 else f"{size:.2f}" for size in shown]

    return [
        row(f"{unit_name} on a device", [run.memory.total for run in runs]),
        *(row(f"  {use}", [getattr(run.memory, use) for run in runs]) for use in uses),
        row(f"{unit_name} available", [run.available for run in runs]),
        ("fits", ["yes" if run.fits else "no" for run in runs]),
    ]


def _cost_rows(plan: Plan) -> list[Row]:
    each = [run.costs for run in plan.runs]
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
