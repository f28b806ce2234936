"""A receipt: phases summed by stage and kind of work, with their costs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from wuerstchen import __version__
from wuerstchen.errors import ConfigError
from wuerstchen.hardware import co2_kilograms
from wuerstchen.receipts.amounts import Amounts, total
from wuerstchen.receipts.attribution import FAILED, Entry, LineKind, attribute
from wuerstchen.receipts.carbon import grams_per_kwh
from wuerstchen.receipts.phase import Phase

STAGES = ("data", "a", "b-pretraining", "b", "c-pretraining", "c", "model")
KINDS: tuple[str, ...] = get_args(get_args(LineKind)[0])


class Tariff(BaseModel):
    """Prices, and the country whose electricity determines the CO2."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    currency: str = "USD"
    per_device_hour: float = Field(default=0.0, ge=0)
    per_kwh: float = Field(default=0.0, ge=0)
    country: str = ""
    """Overrides the country recorded in each phase; empty: keep it."""

    @property
    def has_prices(self) -> bool:
        return self.per_device_hour > 0 or self.per_kwh > 0

    def money(self, amounts: Amounts) -> float | None:
        """In `currency`; None without prices."""
        price = amounts.device_hours * self.per_device_hour + amounts.kwh * self.per_kwh
        return price if self.has_prices else None


def check_same_tariff(tariffs: Sequence[Tariff]) -> None:
    """Raise ConfigError if receipts to be compared have different tariffs."""
    for option, values in (
        ("--price", [f"{each.per_device_hour:g} {each.currency}" for each in tariffs]),
        ("--price-kwh", [f"{each.per_kwh:g} {each.currency}" for each in tariffs]),
        ("--country", [each.country or "that of each phase" for each in tariffs]),
    ):
        if len(set(values)) > 1:
            raise ConfigError(
                f"Expected receipts with the same {option} to compare, found "
                f"{', '.join(dict.fromkeys(values))}; set one for all of them."
            )


class Line(BaseModel):
    """One kind of work for one stage."""

    stage: str
    kind: LineKind
    phases: int
    """Number of phases that contribute."""
    amounts: Amounts
    money: float | None


class Receipt(BaseModel):
    """The file receipt.json."""

    version: Literal[1] = 1
    name: str
    made_by: str = f"wuerstchen {__version__}"
    tariff: Tariff = Field(alias="terms")
    lines: list[Line]
    total: Amounts
    money: float | None
    energy_is: str
    """measured, estimated, or which fraction was measured; CO2 is always estimated."""
    devices: dict[str, float]
    """Device seconds by name of the device."""
    hashes: dict[str, list[str]]
    """SHA-256 of all code, configs (by stage) and data that contributed."""
    phases: list[Phase]

    @property
    def failed(self) -> Amounts:
        return total(line.amounts for line in self.lines if line.kind == FAILED)


def make_receipt(name: str, phases: Sequence[Phase], tariff: Tariff) -> Receipt:
    """The receipt of the phases of one folder; raises ConfigError for an unknown country."""
    relocated = list(_relocated(phases, tariff.country))
    return _sum(name, relocated, list(attribute(relocated)), tariff)


def add_receipts(name: str, receipts: Sequence[Receipt], tariff: Tariff) -> Receipt:
    """The sum of several receipts; shared phases, such as those of a prepared set, count once."""
    phases: dict[str, Phase] = {}
    entries: list[Entry] = []
    for receipt in receipts:
        relocated = list(_relocated(receipt.phases, tariff.country))
        entries += [entry for entry in attribute(relocated) if entry.phase_id not in phases]
        phases |= {phase.id: phase for phase in relocated if phase.id not in phases}
    return _sum(name, list(phases.values()), entries, tariff)


def _relocated(phases: Iterable[Phase], country: str) -> Iterator[Phase]:
    """The phases with the CO2 intensity of `country`; unchanged if it is empty."""
    for phase in phases:
        if not country or phase.country == country:
            yield phase
            continue
        grams = grams_per_kwh(country)
        work = {
            kind: amounts.model_copy(update={"kg": co2_kilograms(amounts.kwh, grams)})
            for kind, amounts in phase.work.items()
        }
        yield phase.model_copy(update={"country": country, "grams_per_kwh": grams, "work": work})


def _sum(name: str, phases: list[Phase], entries: list[Entry], tariff: Tariff) -> Receipt:
    lines = sorted(_lines(entries, tariff), key=_order)
    everything = total(line.amounts for line in lines)
    devices: dict[str, float] = {}
    hashes: dict[str, dict[str, None]] = {}
    for phase in phases:
        seconds = total(phase.work.values()).device_seconds
        devices[phase.device] = devices.get(phase.device, 0.0) + seconds
        inputs = {"code": phase.code, f"config of {phase.stage}": phase.config, "data": phase.data}
        for key, digest in inputs.items():
            if digest:
                hashes.setdefault(key, {})[digest] = None
    return Receipt(
        name=name,
        terms=tariff,
        lines=lines,
        total=everything,
        money=tariff.money(everything),
        energy_is=everything.energy_is,
        devices=devices,
        hashes={key: list(digests) for key, digests in hashes.items()},
        phases=phases,
    )


def _lines(entries: Sequence[Entry], tariff: Tariff) -> Iterator[Line]:
    for stage, kind in dict.fromkeys((entry.stage, entry.kind) for entry in entries):
        found = [entry for entry in entries if (entry.stage, entry.kind) == (stage, kind)]
        amounts = total(entry.amounts for entry in found)
        count, money = len({entry.phase_id for entry in found}), tariff.money(amounts)
        yield Line(stage=stage, kind=kind, phases=count, amounts=amounts, money=money)


def _order(line: Line) -> tuple[int, str, int]:
    """Stages in training order, others after them."""
    known = STAGES.index(line.stage) if line.stage in STAGES else len(STAGES)
    return known, line.stage, KINDS.index(line.kind)
