"""What a plan assumes: devices and their speed, electricity and money."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import final

from wuerstchen.errors import ConfigError
from wuerstchen.hardware import GIB, MIB, WORLD_GRAMS, Device

RESERVE = GIB
"""Device memory for the driver and for the workspace of convolutions."""

SAFE = 0.9
"""Fraction of the rest that is planned with: fragmented memory cannot all be used again."""

UTILISATION = 0.1
"""Fraction of the bf16 peak that training reaches, waiting and restarts included. The published
training of Stage C reached 0.105 by this count of its operations (docs/planning.md)."""

ARITHMETIC = 0.5
"""Largest fraction of its own peak that slower arithmetic reaches."""

UNITS = {"GiB": GIB, "MiB": MIB, "GB": 10**9, "MB": 10**6}


@final
@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Every figure of a plan depends on these and on the config."""

    device: Device
    devices: int = 1
    memory: int | None = None
    """Bytes of a device; None: those of `device`."""
    sharded: bool = False
    """FSDP2 for Stages B and C, whatever the config sets."""
    utilisation: float = UTILISATION
    grid: float = WORLD_GRAMS
    """g CO2 per kWh."""
    price: float | None = None
    """Of an hour of one device."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"--mfu must be above 0 and at most 1, found {self.utilisation}.")
        if self.devices < 1:
            raise ConfigError(f"--devices must be at least 1, found {self.devices}.")
        for name, value in (("--grid", self.grid), ("--price", self.price or 0)):
            if not isfinite(value):
                raise ConfigError(f"{name} must be a finite number, found {value}.")
            if value < 0:
                raise ConfigError(f"{name} must not be negative, found {value}.")

    @property
    def available(self) -> int:
        """Bytes that a step may use."""
        whole = self.device.memory if self.memory is None else self.memory
        return int(SAFE * max(0, whole - RESERVE))

    def sentences(self) -> list[str]:
        device, reserve = self.device, RESERVE / GIB
        found = [
            f"Device: {device.name}, {device.bf16 / 1e12:g} TFLOP/s in bf16, {device.watts:g} W "
            f"({device.source}).",
            f"Speed: {self.utilisation:.0%} of that peak; other dtypes are as fast, up to "
            f"{ARITHMETIC:.0%} of their own. Devices share the work without loss.",
            "Operations: matrix products, convolutions and attention. Each image is encoded every "
            "time it is seen, unless data.latent_cache names a folder of encodings; a data set "
            "that fits into data.cache_gib is encoded once, which needs less.",
            f"Memory: {SAFE:.0%} of what {reserve:g} GiB for the driver leave; validation and "
            "checkpoints are not included.",
            "Energy: the devices alone at full power; host, cooling and network are not included. "
            f"{self.grid:g} g CO2 per kWh.",
        ]
        if self.price is not None:
            found.append(f"Money: {self.price:g} for an hour of one device.")
        return found


def parse_bytes(text: str) -> int:
    """`24GiB`, `80GB`, `512MiB` or `500MB` as bytes; ConfigError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|MiB|GB|MB)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(
            "--device-memory: expected a number followed by GiB, MiB, GB or MB, such as 24GiB, "
            f"found {text!r}."
        )
    return int(float(match[1]) * UNITS[match[2]])
