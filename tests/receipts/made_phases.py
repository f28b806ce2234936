"""Phases with numbers that can be added up by hand."""

from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.phases import End, Kind, Phase


def amounts(seconds: float = 0.0, images: int = 0) -> Amounts:
    """Two devices, 5 operations per image, 0.1 kWh per second, half of it measured."""
    return Amounts(
        seconds=seconds,
        device_seconds=2 * seconds,
        images=images,
        flops=5.0 * images,
        kwh=0.1 * seconds,
        kwh_measured=0.05 * seconds,
        kg=0.1 * seconds * 0.4,
    )


def made(
    name: str,
    *,
    stage: str = "b",
    kind: Kind = "training",
    end: End = "done",
    resumed_at: int | None = None,
    saved: int | None = None,
    config: str = "",
    **work: Amounts,
) -> Phase:
    """A phase; phases start in the order of their names."""
    return Phase.model_validate(
        {
            "id": name,
            "stage": stage,
            "kind": kind,
            "started": f"2026-01-01T00:00:{name}",
            "end": end,
            "at": resumed_at,
            "standing": saved,
            "devices": 2,
            "device": "Abacus",
            "work": work,
            "energy": "by a test",
            "country": "world",
            "grams_per_kwh": 400.0,
            "code": "c0de",
            "config": config,
            "data": "da7a",
        }
    )
