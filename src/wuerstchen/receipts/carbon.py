"""CO2 per kilowatt hour: the yearly average of a country, from codecarbon's table."""

from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, RootModel

from wuerstchen.errors import ConfigError, how_to_install
from wuerstchen.hardware import WORLD_GRAMS
from wuerstchen.parsing import parse_model, read_bytes

WORLD = "world"
"""The default country."""

TABLE = Path("data", "private_infra", "global_energy_mix.json")


class _Country(BaseModel):
    carbon_intensity: float


class _Table(RootModel[dict[str, _Country]]):
    """Codecarbon's table: country to g/kWh, and more that is not used here."""


def country_code(country: str) -> str:
    """A country as the table spells it; case does not matter."""
    return WORLD if country.lower() == WORLD else country.upper()


def grams_per_kwh(country: str) -> float:
    """Grams of CO2 equivalents per kWh in `country`: three letters (ISO 3166), or `world`.

    Raises ConfigError for a country that is not in the table, and if there is no table.
    """
    if country == WORLD:
        return WORLD_GRAMS
    table = _table()
    if not table:
        raise ConfigError(
            f"The CO2 of electricity in {country!r} needs codecarbon, which is not installed; "
            f"{how_to_install('receipt')}, or name no country to use the world average."
        )
    if country not in table:
        near = " or ".join(get_close_matches(country.upper(), table, n=3))
        raise ConfigError(
            "Expected a country as its three letters of ISO 3166, such as DEU, found "
            f"{country!r}; " + (f"did you mean {near}?" if near else "correct it.")
        )
    return table[country]


@lru_cache(maxsize=1)
def _table() -> dict[str, float]:
    """Country to g/kWh, read without importing codecarbon; empty if it is not installed."""
    spec = find_spec("codecarbon")
    if spec is None or spec.origin is None:
        return {}
    try:
        found = parse_model(_Table, read_bytes(Path(spec.origin).parent / TABLE))
        return {name: entry.carbon_intensity for name, entry in found.root.items()}
    except (OSError, ValueError):
        return {}  # another release of codecarbon keeps it elsewhere
