"""The resources that work used: time, images, operations, energy. Amounts add up."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field


class Amounts(BaseModel):
    """Totals of some work; nothing is negative."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    seconds: float = Field(default=0.0, ge=0)
    """Wall-clock time."""
    device_seconds: float = Field(default=0.0, ge=0)
    """Wall-clock time times the number of devices."""
    images: int = Field(default=0, ge=0)
    """Images processed, repeats included."""
    flops: float = Field(default=0.0, ge=0)
    """Floating point operations; 0 if they were not counted."""
    kwh: float = Field(default=0.0, ge=0)
    kwh_measured: float = Field(default=0.0, ge=0)
    """The part of `kwh` measured by hardware counters; the rest is estimated."""
    kg: float = Field(default=0.0, ge=0)
    """Kilograms of CO2 equivalents: `kwh` times the average of the country."""

    def split(self, fraction: float) -> tuple["Amounts", "Amounts"]:
        """Two amounts that add up to this one; the first is `fraction`, 0 to 1, of it."""
        images = round(self.images * fraction)
        return self._scaled(fraction, images), self._scaled(1 - fraction, self.images - images)

    @property
    def device_hours(self) -> float:
        return self.device_seconds / 3600

    @property
    def energy_is(self) -> str:
        """measured, estimated, or which fraction was measured."""
        fraction = self.kwh_measured / self.kwh if self.kwh else 0.0
        if fraction >= 0.995:
            return "measured"
        return f"{fraction:.0%} measured, the rest estimated" if fraction >= 0.005 else "estimated"

    def _scaled(self, factor: float, images: int) -> "Amounts":
        values = self.model_dump(exclude={"images"})
        return Amounts(images=images, **{name: value * factor for name, value in values.items()})


def total(amounts: Iterable[Amounts]) -> Amounts:
    rows = list(amounts)
    names = Amounts.model_fields
    return Amounts(**{name: sum(getattr(row, name) for row in rows) for name in names})
