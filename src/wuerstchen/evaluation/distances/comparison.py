"""Put records side by side, if they were measured in the same way."""

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.record import HIGHER, TITLES, Setting

SHOWN = 3
"""Differences that an error names."""


class StoredFigure(BaseModel):
    """A figure in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: float
    spread: float | None


class StoredRecord(BaseModel):
    """What `wuerstchen distance` wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["distance"]
    protocol: dict[str, Setting]
    drawn: dict[str, Setting]
    versions: dict[str, Setting]
    figures: dict[str, StoredFigure]
    seconds: dict[str, float]


class HasProtocol(Protocol):
    """A record of any kind."""

    @property
    def protocol(self) -> Mapping[str, Setting]: ...


def check_alike(records: Mapping[str, HasProtocol]) -> None:
    """Raise DataError, naming the differences, unless all were measured in the same way."""
    (first, one), *others = records.items()
    for name, other in others:
        found = differences(one.protocol, other.protocol)
        if found:
            told = "; ".join(
                f"{key} is {_show(one.protocol, key)} in {first} and {_show(other.protocol, key)} "
                f"in {name}"
                for key in found[:SHOWN]
            )
            more = f", and {len(found) - SHOWN} more differ" if found[SHOWN:] else ""
            raise DataError(
                f"Figures that were measured in different ways cannot be compared: {told}{more}; "
                "measure both in the same way."
            )


def differences(one: Mapping[str, Setting], other: Mapping[str, Setting]) -> list[str]:
    """Keys whose values differ, in the order of the first."""
    keys = [*one, *(key for key in other if key not in one)]
    return [key for key in keys if key not in one or key not in other or one[key] != other[key]]


def lines(records: Mapping[str, StoredRecord]) -> Iterator[str]:
    """A table: figures by record, the best one marked, then how the records differ."""
    width = max(18, *(len(name) for name in records)) + 1
    yield " " * 36 + "".join(f" {name:>{width}}" for name in records)
    all_records = list(records.values())
    for key, title in TITLES.items():
        figures = [record.figures[key] for record in all_records if key in record.figures]
        if len(figures) < len(all_records):
            continue
        values = [figure.value for figure in figures]
        best = max(values) if key in HIGHER else min(values)
        unlike = len(set(values)) > 1 and key != "inception_score_of_real"
        cells = (_cell(figure, unlike and figure.value == best) for figure in figures)
        yield f"{title:36}" + "".join(f" {cell:>{width + 1}}" for cell in cells).rstrip()
    if len(all_records) > 1:
        yield "* the best; of small differences, see the spread of KID before you believe them"
    for kind in ("drawn", "versions"):
        cards: list[dict[str, Setting]] = [getattr(record, kind) for record in all_records]
        for key in dict.fromkeys(key for card in cards[1:] for key in differences(cards[0], card)):
            if key != "images":
                yield f"{key}: " + ", ".join(_show(card, key) for card in cards)


def _cell(figure: StoredFigure, best: bool) -> str:
    spread = "" if figure.spread is None else f" ± {figure.spread:.2g}"
    return f"{figure.value:.5g}{spread}{'*' if best else ' '}"


def _show(card: Mapping[str, Setting], key: str) -> str:
    value = card.get(key)
    if value is None:
        return "not stated"
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text  # a hash
