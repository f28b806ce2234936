"""What a plan takes for given: the devices, their speed, electricity and money."""

from dataclasses import dataclass
from math import isfinite

from wuerstchen.errors import ConfigError
from wuerstchen.hardware import WORLD_GRAMS
from wuerstchen.planning.devices import GIB, Device
from wuerstchen.planning.estimate import ARITHMETIC, UTILISATION

RESERVE = GIB
"""Of the device's memory, for its driver and for what convolutions work with."""

SAFE = 0.9
"""Share of the rest that is planned with: what is freed in pieces cannot all be used again."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the plan takes for given. Every figure of it rests on these and on the config."""

    device: Device
    devices: int = 1
    memory: int | None = None
    """Bytes of a device; None: as the device has them."""
    sharded: bool = False
    """FSDP2 for Stages B and C, whatever the config says."""
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
    def room(self) -> int:
        """Bytes that a step may take."""
        whole = self.device.memory if self.memory is None else self.memory
        return int(SAFE * max(0, whole - RESERVE))

    def words(self) -> list[str]:
        """Each as a sentence."""
        device, reserve = self.device, RESERVE / GIB
        found = [
            f"Device: {device.name}, {device.bf16 / 1e12:g} TFLOP/s in bf16, {device.watts:g} W "
            f"({device.source}).",
            f"Speed: {self.utilisation:.0%} of that peak; other numbers as fast, up to "
            f"{ARITHMETIC:.0%} of their own. Devices share the work without loss.",
            "Operations: matrix products, convolutions and attention. Each image is encoded "
            "every time it is seen, unless data.latent_cache names what was encoded ahead; a training "
            "whose set fits into data.cache_gib encodes it once and takes less.",
            f"Memory: {SAFE:.0%} of what is left beside {reserve:g} GiB for the driver is planned "
            "with; looks and checkpoints are left out.",
            "Energy: the devices alone at their full power; host, cooling and network are left "
            f"out. {self.grid:g} g CO2 per kWh.",
        ]
        if self.price is not None:
            found.append(f"Money: {self.price:g} for an hour of one device.")
        return found
