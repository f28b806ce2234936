"""Published training costs, to compare receipts with. Nothing in published.json is estimated."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from wuerstchen.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published receipt; None: not published."""

    name: str
    title: str
    device: str
    device_hours: float | None
    images: int | None
    """Images seen in training."""
    kg: float | None
    """CO2 equivalents, as estimated by the authors."""
    counts: str
    """What is included and what is not."""
    source: str


@cache
def published_receipts() -> dict[str, Published]:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    return {entry["name"]: Published(**entry) for entry in json.loads(text)}


def choose(names: str) -> list[Published]:
    """The receipts named in a comma-separated list, `all` or `none`; raises ConfigError."""
    known = published_receipts()
    if names in ("all", "none"):
        return list(known.values()) if names == "all" else []
    found: list[Published] = []
    for name in (part.strip() for part in names.split(",")):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ConfigError(
                f"--against: expected all, none or one of {', '.join(known)}, found {name!r}"
                + (f"; did you mean {near[0]}?" if near else ".")
            )
        found.append(known[name])
    return found
