"""Hours, energy, carbon and money that a number of operations costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from wuerstchen.hardware import Device, co2_kilograms
from wuerstchen.planning.assumptions import ARITHMETIC, Assumptions
from wuerstchen.planning.trace import Kind


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Of all devices together, except `hours`."""

    hours: float
    """From start to end."""
    device_hours: float
    kwh: float
    co2: float
    """kg."""
    money: float | None
    """In the currency of the price; None without one."""


def rate(device: Device, kind: Kind, utilisation: float) -> float:
    """FLOP/s that are reached.

    At a low utilisation memory is the limit: fp32 then runs as fast as bf16, up to half of its
    own peak.
    """
    if kind == "bf16":
        return utilisation * device.bf16
    peak = device.tf32 if kind == "tf32" else device.fp32
    return min(utilisation * device.bf16, max(ARITHMETIC, utilisation) * peak)


def costs(flops: Mapping[Kind, float], given: Assumptions) -> Costs:
    """Of the operations of a whole training, divided evenly among the devices."""
    device, price = given.device, given.price
    seconds = sum(count / rate(device, kind, given.utilisation) for kind, count in flops.items())
    hours = seconds / 3600
    kwh = hours * device.watts / 1000
    return Costs(
        hours=hours / given.devices,
        device_hours=hours,
        kwh=kwh,
        co2=co2_kilograms(kwh, given.grid),
        money=None if price is None else hours * price,
    )


def total_costs(runs: Sequence[Costs]) -> Costs:
    """Of trainings one after the other."""
    money = [run.money for run in runs if run.money is not None]
    return Costs(
        hours=sum(run.hours for run in runs),
        device_hours=sum(run.device_hours for run in runs),
        kwh=sum(run.kwh for run in runs),
        co2=sum(run.co2 for run in runs),
        money=sum(money) if len(money) == len(runs) and runs else None,
    )
