"""Receipts and published ones in the same columns: as a text table, and as JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.number_format import (
    ABSENT,
    format_hours,
    format_kg,
    format_kwh,
    format_number,
)
from wuerstchen.receipts.published import Published
from wuerstchen.receipts.receipt import Receipt, Tariff


@dataclass(frozen=True, kw_only=True)
class Row:
    """One receipt as a row of the table; None: not counted or not published."""

    title: str
    device_hours: float | None
    failed_hours: float | None = None
    """The part of `device_hours` in failed attempts."""
    flops: float | None = None
    images: int | None
    kwh: float | None = None
    kg: float | None
    money: float | None
    device: str
    note: str
    """What is included, and how it was determined."""

    def cells(self) -> list[str]:
        return [
            self.title,
            format_hours(self.device_hours),
            format_hours(self.failed_hours),
            ABSENT if self.flops is None else f"{self.flops:.2e}",
            ABSENT if self.images is None else f"{self.images:,}",
            format_kwh(self.kwh),
            format_kg(self.kg),
            format_number(self.money),
            self.device,
        ]


def header(currency: str) -> list[str]:
    """Column titles of the table of receipts; the first and the last column hold text."""
    amounts = ["device hours", "failed", "FLOPs", "images", "kWh", "kg CO2", currency]
    return ["", *amounts, "device"]


def row_of(receipt: Receipt) -> Row:
    amounts = receipt.total
    methods = sorted({phase.energy for phase in receipt.phases})
    countries = sorted({f"{p.country} ({p.grams_per_kwh:g} g/kWh)" for p in receipt.phases})
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
        note=f"{', '.join(kinds)}. Energy {receipt.energy_is}, {'; '.join(methods)}. CO2 estimated "
        f"from the average of {', '.join(countries)}.",
    )


def row_of_published(entry: Published, tariff: Tariff) -> Row:
    """The row of a published receipt; its money is that of its hours at our price."""
    priced = tariff.per_device_hour > 0 and entry.device_hours is not None
    return Row(
        title=entry.title,
        device_hours=entry.device_hours,
        images=entry.images,
        kg=entry.kg,
        money=(entry.device_hours or 0.0) * tariff.per_device_hour if priced else None,
        device=entry.device,
        note=f"{entry.counts} ({entry.source})",
    )


def line_header(currency: str) -> list[str]:
    """Column titles of the table of one receipt; the first two columns hold text."""
    amounts = ["device hours", "FLOPs", "images", "kWh", "kg CO2", currency]
    return ["stage", "kind", "phases", *amounts]


def line_cells(receipt: Receipt) -> Iterator[list[str]]:
    """A row of cells per stage and kind of a receipt, then the total."""
    for line in receipt.lines:
        money = format_number(line.money)
        yield [line.stage, line.kind, f"{line.phases}", *_cells(line.amounts), money]
    money = format_number(receipt.money)
    yield ["all", "", f"{len(receipt.phases)}", *_cells(receipt.total), money]


def describe_tariff(tariff: Tariff) -> str:
    if not tariff.has_prices:
        return "No price is set, so no money is shown."
    prices = [f"{tariff.per_device_hour:g} {tariff.currency} per device hour"]
    if tariff.per_kwh:
        prices.append(f"{tariff.per_kwh:g} {tariff.currency} per kWh")
    return f"Money: {' and '.join(prices)}; for published receipts only the hours, at that price."


def as_text(receipts: Sequence[Receipt], published: Sequence[Published]) -> str:
    """All receipts in one table, one table for each of ours, and notes.

    receipts  at least one; the tariff of the first applies to the published ones
    """
    tariff = receipts[0].tariff
    rows = [row_of(receipt) for receipt in receipts]
    rows += [row_of_published(entry, tariff) for entry in published]
    parts = [_aligned([header(tariff.currency), *(row.cells() for row in rows)], (0, 8))]
    for receipt in receipts:
        table = [line_header(receipt.tariff.currency), *line_cells(receipt)]
        parts.append(f"{receipt.name}\n{_aligned(table, (0, 1))}")
    notes = [f"{row.title}: {row.note}" for row in rows]
    parts.append("\n".join(["Included:", *notes, describe_tariff(tariff)]))
    return "\n\n".join(parts)


def as_json(
    receipts: Sequence[Receipt], together: Receipt | None, published: Sequence[Published]
) -> str:
    """An object with `receipts`, `together` (null for a single one) and `published`."""
    values = {
        "receipts": [receipt.model_dump(mode="json", by_alias=True) for receipt in receipts],
        "together": together and together.model_dump(mode="json", by_alias=True),
        "published": [asdict(entry) for entry in published],
    }
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)


def _aligned(rows: Sequence[Sequence[str]], text_columns: Iterable[int]) -> str:
    """Aligned columns: text to the left, numbers to the right."""
    left = set(text_columns)
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
        format_hours(amounts.device_hours),
        f"{amounts.flops:.2e}" if amounts.flops else ABSENT,
        f"{amounts.images:,}",
        format_kwh(amounts.kwh),
        format_kg(amounts.kg),
    ]
