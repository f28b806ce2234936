"""Receipts beside each other and beside published ones: the same columns for all of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.published import Published
from wuerstchen.receipts.receipt import Receipt, Terms
from wuerstchen.receipts.units import ABSENT, hours, kilograms, kilowatt_hours, number


@dataclass(frozen=True)
class Row:
    """One receipt as a line of the table; None is what nobody counted or published."""

    title: str
    device_hours: float | None
    failed_hours: float | None
    """The part of `device_hours` that went into failed tries."""
    flops: float | None
    images: int | None
    kwh: float | None
    kg: float | None
    money: float | None
    device: str
    note: str
    """What counts in it, and how it is known."""

    def cells(self) -> list[str]:
        return [
            self.title,
            hours(self.device_hours),
            hours(self.failed_hours),
            ABSENT if self.flops is None else f"{self.flops:.2e}",
            ABSENT if self.images is None else f"{self.images:,}",
            kilowatt_hours(self.kwh),
            kilograms(self.kg),
            number(self.money),
            self.device,
        ]


def heads(currency: str) -> list[str]:
    """Titles of the columns; the first and the last hold text."""
    amounts = ["device hours", "failed", "FLOPs", "images", "kWh", "kg CO2", currency]
    return ["", *amounts, "device"]


def row_of(receipt: Receipt) -> Row:
    """A receipt of ours, everything in it."""
    amounts = receipt.total
    ways = sorted({phase.energy for phase in receipt.phases})
    places = sorted({f"{p.country} ({p.grams_per_kwh:g} g/kWh)" for p in receipt.phases})
    kinds = dict.fromkeys(line.kind for line in receipt.lines)
    return Row(
        title=receipt.name,
        device_hours=amounts.device_hours,
        failed_hours=receipt.failed.device_hours,
        flops=amounts.flops or None,
        images=amounts.images,
        kwh=amounts.kwh,
        kg=amounts.kg,
        money=receipt.money,
        device=" + ".join(receipt.devices),
        note=f"{', '.join(kinds)}. Energy {receipt.energy_is}, {'; '.join(ways)}. CO2 estimated "
        f"by the mean of {', '.join(places)}.",
    )


def row_of_published(entry: Published, terms: Terms) -> Row:
    """A published one; its money is that of its hours at our price of a device hour."""
    priced = terms.per_device_hour > 0 and entry.device_hours is not None
    return Row(
        title=entry.title,
        device_hours=entry.device_hours,
        failed_hours=None,
        flops=None,
        images=entry.images,
        kwh=None,
        kg=entry.kg,
        money=(entry.device_hours or 0.0) * terms.per_device_hour if priced else None,
        device=entry.device,
        note=f"{entry.counts} ({entry.source})",
    )


def lines_of(receipt: Receipt) -> Iterator[list[str]]:
    """Cells by stage and kind: stage, kind, phases, then amounts as in the table of all."""
    for line in receipt.lines:
        money = number(line.money)
        yield [line.stage, line.kind, f"{line.phases}", *_cells(line.amounts), money]
    count = len(receipt.phases)
    yield ["all", "", f"{count}", *_cells(receipt.total), number(receipt.money)]


def heads_of_lines(currency: str) -> list[str]:
    return [
        "stage",
        "kind",
        "phases",
        "device hours",
        "FLOPs",
        "images",
        "kWh",
        "kg CO2",
        currency,
    ]


def tariff(terms: Terms) -> str:
    """The terms as a sentence."""
    if not terms.stated:
        return "No tariff is stated, so there is no money."
    found = [f"{terms.per_device_hour:g} {terms.currency} per device hour"]
    if terms.per_kwh:
        found.append(f"{terms.per_kwh:g} {terms.currency} per kWh")
    return f"Money: {' and '.join(found)}; for published receipts the hours alone, at that price."


def as_text(rows: Sequence[Sequence[str]], texts: Iterable[int]) -> str:
    """Lines with columns below each other; numbers to the right, columns `texts` to the left."""
    left = set(texts)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(amounts: Amounts) -> list[str]:
    return [
        hours(amounts.device_hours),
        f"{amounts.flops:.2e}" if amounts.flops else ABSENT,
        f"{amounts.images:,}",
        kilowatt_hours(amounts.kwh),
        kilograms(amounts.kg),
    ]
