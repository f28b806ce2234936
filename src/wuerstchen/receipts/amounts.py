"""What work used up: seconds, images, operations, energy. Amounts of several phases add up."""

from pydantic import BaseModel, ConfigDict

SECONDS_PER_HOUR = 3600


class Amounts(BaseModel):
    """Sums over some work; nothing is negative."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    seconds: float = 0.0
    """By the clock on the wall."""
    device_seconds: float = 0.0
    """The same, times the devices that worked beside each other."""
    images: int = 0
    """Images, each counted every time that it was seen."""
    flops: float = 0.0
    """Floating point operations; 0 where nobody counted them."""
    kwh: float = 0.0
    kwh_measured: float = 0.0
    """The part of `kwh` that counters of the hardware measured; the rest is estimated."""
    kg: float = 0.0
    """Kilograms of CO2 equivalents: always `kwh` times a mean of the country."""

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            seconds=self.seconds + other.seconds,
            device_seconds=self.device_seconds + other.device_seconds,
            images=self.images + other.images,
            flops=self.flops + other.flops,
            kwh=self.kwh + other.kwh,
            kwh_measured=self.kwh_measured + other.kwh_measured,
            kg=self.kg + other.kg,
        )

    def split(self, share: float) -> tuple["Amounts", "Amounts"]:
        """Two amounts that add up to this one, the first of which has `share`, 0 to 1, of it."""
        images = round(self.images * share)
        return self._scaled(share, images), self._scaled(1 - share, self.images - images)

    @property
    def device_hours(self) -> float:
        return self.device_seconds / SECONDS_PER_HOUR

    @property
    def energy_is(self) -> str:
        """measured, estimated, or how much of it was measured."""
        share = self.kwh_measured / self.kwh if self.kwh else 0.0
        if share >= 0.995:
            return "measured"
        return f"{share:.0%} measured, the rest estimated" if share >= 0.005 else "estimated"

    def _scaled(self, share: float, images: int) -> "Amounts":
        return Amounts(
            seconds=self.seconds * share,
            device_seconds=self.device_seconds * share,
            images=images,
            flops=self.flops * share,
            kwh=self.kwh * share,
            kwh_measured=self.kwh_measured * share,
            kg=self.kg * share,
        )


def total(parts: "list[Amounts]") -> Amounts:
    return sum(parts, Amounts())
