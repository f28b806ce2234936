"""Phases with numbers that a test can add up by hand."""

from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.phases import End, Kind, Phase


def amounts(seconds: float = 0.0, images: int = 0) -> Amounts:
    """Two devices, 5 operations an image, 0.1 kWh a second of which half is measured."""
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
    at: int | None = None,
    standing: int | None = None,
    config: str = "",
    **work: Amounts,
) -> Phase:
    """A phase that began in the order of its name."""
    return Phase.model_validate(
        {
            "id": name,
            "stage": stage,
            "kind": kind,
            "started": f"2026-01-01T00:00:{name}",
            "end": end,
            "at": at,
            "standing": standing,
            "devices": 2,
            "device": "Abacus",
            "work": work,
            "energy": "by a hamster wheel",
            "country": "world",
            "grams_per_kwh": 400.0,
            "code": "c0de",
            "config": config,
            "data": "da7a",
        }
    )
