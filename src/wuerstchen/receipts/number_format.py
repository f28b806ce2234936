"""Numbers for people: three significant digits, and a smaller unit for small values."""

ABSENT = "–"

SMALL = 0.01
"""Hours, kWh and kg below this are shown in a smaller unit."""


def format_number(value: float | None) -> str:
    """Three significant digits, whole numbers from 100 on, and a dash for None."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_hours(value: float | None) -> str:
    """A number of hours, or seconds such as `12.6 s` if it is small."""
    return _scaled(value, ((3600, "s"),))


def format_kwh(value: float | None) -> str:
    """A number of kWh, or `1.26 Wh` if it is small."""
    return _scaled(value, ((1e3, "Wh"), (1e6, "mWh")))


def format_kg(value: float | None) -> str:
    """A number of kg, or `35.1 mg` if it is small."""
    return _scaled(value, ((1e3, "g"), (1e6, "mg")))


def with_unit(formatted: str, unit: str) -> str:
    """A result of the functions above for use in a sentence."""
    return formatted if " " in formatted else f"{formatted} {unit}"


def _scaled(value: float | None, units: tuple[tuple[float, str], ...]) -> str:
    """Small values in the first unit in which they are at least 1, or else in the last one."""
    if value is None or value == 0 or value >= SMALL:
        return format_number(value)
    factor, unit = next((each for each in units if value * each[0] >= 1), units[-1])
    return f"{format_number(value * factor)} {unit}"
