"""Hours, energy, carbon and money of a number of operations."""

from collections.abc import Mapping
from dataclasses import dataclass

from wuerstchen.planning.devices import Device
from wuerstchen.planning.trace import Kind

UTILISATION = 0.1
"""Share of the bf16 peak that training reaches, waiting and restarts included. The published run of
Stage C came to 0.105 by this count of its operations (docs/planning.md)."""

ARITHMETIC = 0.5
"""Most of its own peak that slower arithmetic reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Of all devices together, but for `hours`."""

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

    Where utilisation is low, memory is what limits: fp32 then runs as fast as bf16, until it
    comes to half of its own peak.
    """
    if kind == "bf16":
        return utilisation * device.bf16
    peak = device.tf32 if kind == "tf32" else device.fp32
    return min(utilisation * device.bf16, max(ARITHMETIC, utilisation) * peak)


def costs(
    flops: Mapping[Kind, float],
    device: Device,
    devices: int,
    *,
    utilisation: float,
    grid: float,
    price: float | None,
) -> Costs:
    """Of the operations of a whole run, spread evenly over the devices."""
    seconds = sum(count / rate(device, kind, utilisation) for kind, count in flops.items())
    hours = seconds / 3600
    kwh = hours * device.watts / 1000
    return Costs(
        hours=hours / devices,
        device_hours=hours,
        kwh=kwh,
        co2=kwh * grid / 1000,
        money=None if price is None else hours * price,
    )


def together(parts: list[Costs]) -> Costs:
    """One after the other."""
    money = [part.money for part in parts if part.money is not None]
    return Costs(
        hours=sum(part.hours for part in parts),
        device_hours=sum(part.device_hours for part in parts),
        kwh=sum(part.kwh for part in parts),
        co2=sum(part.co2 for part in parts),
        money=sum(money) if len(money) == len(parts) and parts else None,
    )
