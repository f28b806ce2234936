"""Published figures, to put beside measured ones. Nothing in published.json is estimated."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from wuerstchen.errors import ConfigError
from wuerstchen.evaluation.distances.record import TITLES, Setting

PROTOCOL: dict[str, Setting] = {"features": "inception", "n_drawn": 30_000, "size": 256}
"""Of the FIDs in published.json, as far as it is published; Inception Scores are at 299 pixels."""

REAL = "captions of COCO 2014 validation, 30,000 of them"


@dataclass(frozen=True, kw_only=True)
class Published:
    """The figures of one model; None: not published."""

    name: str
    title: str
    frechet: float | None
    inception_score: float | None
    steps: int | None
    note: str
    """By whom it was measured, and what is not known."""
    source: str


@cache
def published_figures() -> dict[str, Published]:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    return {entry["name"]: Published(**entry) for entry in json.loads(text)}


def choose(names: str) -> list[Published]:
    """The figures named in a comma-separated list, or `all`; raises ConfigError."""
    known = published_figures()
    if names == "all":
        return list(known.values())
    found = []
    for name in (part.strip() for part in names.split(",")):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ConfigError(
                f"--against: expected all or one of {', '.join(known)}, found {name!r}"
                + (f"; did you mean {near[0]}?" if near else ".")
            )
        found.append(known[name])
    return found


def lines(chosen: list[Published], protocol: Mapping[str, Setting]) -> Iterator[str]:
    """The published figures, their sources, and why they cannot be compared with this protocol."""
    if not chosen:
        return
    yield f"Published ({REAL}):"
    for each in chosen:
        figures = ", ".join(
            f"{TITLES[key]} {value:g}"
            for key in ("frechet", "inception_score")
            if (value := getattr(each, key)) is not None
        )
        yield f"  {each.title}: {figures or '-'}. {each.note} Source: {each.source}"
    unlike = [
        f"{key} is {value} there and {protocol.get(key) or 'not stated'} here"
        for key, value in PROTOCOL.items()
        if protocol.get(key) != value
    ]
    if unlike:
        yield f"  Not comparable with the figures above: {'; '.join(unlike)}."
    else:
        yield "  Comparable only if the real images are the same, which no hash was published for."
