"""Numbers for people: three figures, and a smaller unit where there is little."""

ABSENT = "–"

LITTLE = 0.01
"""Of an hour, a kilowatt hour or a kilogram: less is told in a smaller unit."""


def number(value: float | None) -> str:
    """Three figures, and whole numbers from 100 on; a dash for None."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hours(value: float | None) -> str:
    """A number of hours, or `12.6 s` for few."""
    if value is None or value == 0 or value >= LITTLE:
        return number(value)
    return f"{number(value * 3600)} s"


def kilowatt_hours(value: float | None) -> str:
    """A number of kWh, or `1.26 Wh` for few."""
    return _thousands(value, "Wh")


def kilograms(value: float | None) -> str:
    """A number of kg, or `35.1 mg` for few."""
    return _thousands(value, "g")


def with_unit(shown: str, unit: str) -> str:
    """What the functions above said, as it stands in a sentence."""
    return shown if " " in shown else f"{shown} {unit}"


def _thousands(value: float | None, unit: str) -> str:
    if value is None or value == 0 or value >= LITTLE:
        return number(value)
    return _scaled(value, ((1e3, unit), (1e6, f"m{unit}")))


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """In the first unit of which there is one at least, or else in the last."""
    size, unit = next((each for each in units if value * each[0] >= 1), units[-1])
    return f"{number(value * size)} {unit}"
