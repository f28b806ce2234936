"""A receipt: phases added up, by stage and kind of work, with what they cost."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wuerstchen import __version__
from wuerstchen.errors import ConfigError
from wuerstchen.receipts.amounts import Amounts, total
from wuerstchen.receipts.attribution import FAILED, Piece, Word, pieces
from wuerstchen.receipts.carbon import grams_per_kwh
from wuerstchen.receipts.phases import Phase

STAGES = ("data", "a", "b-pretraining", "b", "c-pretraining", "c", "model")
KINDS: tuple[Word, ...] = (
    "preparation",
    "encoding",
    "training",
    "look",
    "evaluation",
    FAILED,
)


class Terms(BaseModel):
    """What is asked of a receipt: money at a tariff, CO2 of a country."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    currency: str = "USD"
    per_device_hour: float = Field(default=0.0, ge=0)
    per_kwh: float = Field(default=0.0, ge=0)
    country: str = ""
    """Where its electricity shall be from; empty: where each phase said that it was."""

    @property
    def stated(self) -> bool:
        """Whether there is a tariff."""
        return self.per_device_hour > 0 or self.per_kwh > 0

    def money(self, amounts: Amounts) -> float | None:
        """In `currency`; None without a tariff."""
        if not self.stated:
            return None
        return amounts.device_hours * self.per_device_hour + amounts.kwh * self.per_kwh


def check_alike(terms: Sequence[Terms]) -> None:
    """Raise ConfigError where receipts that are put side by side are of unlike terms."""
    for option, shown in (
        ("--price", [f"{each.per_device_hour:g} {each.currency}" for each in terms]),
        ("--price-kwh", [f"{each.per_kwh:g} {each.currency}" for each in terms]),
        ("--country", [each.country or "that of each phase" for each in terms]),
    ):
        if len(set(shown)) > 1:
            raise ConfigError(
                f"Expected receipts of one {option} to put side by side, found "
                f"{', '.join(dict.fromkeys(shown))}; give one for all of them."
            )


class Line(BaseModel):
    """One kind of work for one stage."""

    stage: str
    kind: Word
    phases: int
    """How many have a part in it."""
    amounts: Amounts
    money: float | None


class Receipt(BaseModel):
    """The file receipt.json."""

    version: Literal[1] = 1
    name: str
    made_by: str = f"wuerstchen {__version__}"
    terms: Terms
    lines: list[Line]
    total: Amounts
    money: float | None
    energy_is: str
    """measured, estimated, or how much of it was measured; CO2 is always estimated."""
    devices: dict[str, float]
    """Device seconds by what computed."""
    hashes: dict[str, list[str]]
    """SHA-256 of all code, configs (by stage) and data that had a part."""
    phases: list[Phase]

    @property
    def failed(self) -> Amounts:
        """What went into failed tries."""
        return total([line.amounts for line in self.lines if line.kind == FAILED])


def make_receipt(name: str, phases: Sequence[Phase], terms: Terms) -> Receipt:
    """Of the phases of one folder; raises ConfigError for a country that is not known."""
    moved = list(_moved(phases, terms.country))
    return _added(name, moved, list(pieces(moved)), terms)


def add_receipts(name: str, receipts: Sequence[Receipt], terms: Terms) -> Receipt:
    """Several as one; phases that they share, such as those of one prepared set, count once."""
    phases: dict[str, Phase] = {}
    parts: list[Piece] = []
    for receipt in receipts:
        moved = list(_moved(receipt.phases, terms.country))
        parts += [piece for piece in pieces(moved) if piece.phase not in phases]
        phases |= {phase.id: phase for phase in moved if phase.id not in phases}
    return _added(name, list(phases.values()), parts, terms)


def _moved(phases: Iterable[Phase], country: str) -> Iterator[Phase]:
    """The phases as if their electricity came from `country`; as they are where it is empty."""
    for phase in phases:
        if not country or phase.country == country:
            yield phase
            continue
        grams = grams_per_kwh(country)
        work = {
            kind: amounts.model_copy(update={"kg": amounts.kwh * grams / 1000})
            for kind, amounts in phase.work.items()
        }
        yield phase.model_copy(update={"country": country, "grams_per_kwh": grams, "work": work})


def _added(name: str, phases: list[Phase], parts: list[Piece], terms: Terms) -> Receipt:
    lines = sorted(_lines(parts, terms), key=_place)
    everything = total([line.amounts for line in lines])
    devices: dict[str, float] = {}
    hashes: dict[str, list[str]] = {}
    for phase in phases:
        seconds = total(list(phase.work.values())).device_seconds
        devices[phase.device] = devices.get(phase.device, 0.0) + seconds
        for key, digest in (
            ("code", phase.code),
            (f"config of {phase.stage}", phase.config),
            ("data", phase.data),
        ):
            if digest and digest not in hashes.setdefault(key, []):
                hashes[key].append(digest)
    return Receipt(
        name=name,
        terms=terms,
        lines=lines,
        total=everything,
        money=terms.money(everything),
        energy_is=everything.energy_is,
        devices=devices,
        hashes={key: found for key, found in hashes.items() if found},
        phases=phases,
    )


def _lines(parts: Sequence[Piece], terms: Terms) -> Iterator[Line]:
    for stage, kind in dict.fromkeys((piece.stage, piece.kind) for piece in parts):
        found = [piece for piece in parts if (piece.stage, piece.kind) == (stage, kind)]
        amounts = total([piece.amounts for piece in found])
        count = len({piece.phase for piece in found})
        money = terms.money(amounts)
        yield Line(stage=stage, kind=kind, phases=count, amounts=amounts, money=money)


def _place(line: Line) -> tuple[int, str, int]:
    """Stages in the order of the road, others behind them."""
    known = STAGES.index(line.stage) if line.stage in STAGES else len(STAGES)
    return known, line.stage, KINDS.index(line.kind)
