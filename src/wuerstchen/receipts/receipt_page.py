"""receipt.html: a receipt for people, as one self-contained file."""

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from wuerstchen.atomic_write import write_file
from wuerstchen.html_page import html_page, html_table, scrollable
from wuerstchen.receipts import table
from wuerstchen.receipts.attribution import FAILED
from wuerstchen.receipts.number_format import (
    format_hours,
    format_kg,
    format_kwh,
    format_number,
    with_unit,
)
from wuerstchen.receipts.published import published_receipts
from wuerstchen.receipts.receipt import Receipt

STYLE = "svg text { font: 12px sans-serif } code { font-size: 12px; overflow-wrap: anywhere }"

BLUE, RED, GREY = "#0072B2", "#D55E00", "#999999"
NAME_WIDTH, BAR_WIDTH, LINE_HEIGHT = 240, 520, 22
"""Pixels of the names, of the longest bar, and of a line."""


def write_page(path: Path, receipt: Receipt) -> None:
    """Write the page atomically. Raises SaveError."""
    body = "\n".join(_sections(receipt))
    write_file(path, html_page(f"Receipt of {receipt.name}", body, STYLE))


def _sections(receipt: Receipt) -> Iterator[str]:
    own = table.row_of(receipt)
    published = published_receipts().values()
    rows = [own, *(table.row_of_published(entry, receipt.tariff) for entry in published)]
    currency = receipt.tariff.currency
    yield f"<p>{html.escape(_summary(receipt))}</p><p>Included: {html.escape(own.note)}</p>"
    yield "<h2>By stage and kind of work</h2>"
    yield html_table([table.line_header(currency), *table.line_cells(receipt)], (0, 1), sums=True)
    bars = [
        (f"{x.stage}, {x.kind}", x.amounts.device_hours, RED if x.kind == FAILED else BLUE)
        for x in receipt.lines
    ]
    yield _bars("Device hours", bars)
    yield "<h2>Compared with published costs</h2>"
    yield html_table([table.header(currency), *(row.cells() for row in rows)], (0, 8))
    bars = [(row.title, row.device_hours or 0.0, BLUE if row is own else GREY) for row in rows]
    yield _bars("Device hours, on a logarithmic scale", bars, logarithmic=True)
    yield _notes(rows, receipt)
    yield "<h2>Phases</h2>" + _phases(receipt)
    yield "<h2>Devices and hashes</h2>" + _hashes(receipt)


def _summary(receipt: Receipt) -> str:
    amounts, failed = receipt.total, receipt.failed
    started = min((phase.started[:16].replace("T", " ") for phase in receipt.phases), default="")
    return (
        f"Started {started} UTC, {len(receipt.phases)} phases, {_time(amounts.device_hours)} of "
        f"device time, of which {_time(failed.device_hours)} in failed attempts; "
        f"{with_unit(format_kwh(amounts.kwh), 'kWh')}, "
        f"{with_unit(format_kg(amounts.kg), 'kg')} of CO2. {table.describe_tariff(receipt.tariff)}"
    )


def _time(value: float) -> str:
    """A time in hours, in the largest unit of which there is at least one."""
    for unit, size in (("hours", 1.0), ("minutes", 60.0)):
        if value * size >= 1:
            return f"{format_number(value * size)} {unit}"
    return f"{format_number(value * 3600)} seconds"


def _bars(
    title: str, values: Sequence[tuple[str, float, str]], *, logarithmic: bool = False
) -> str:
    """A bar chart of (name, value, colour); bars without a value are left out."""
    shown = [(name, value, colour) for name, value, colour in values if value > 0]
    if not shown:
        return ""
    least, most = (pick(value for _, value, _ in shown) for pick in (min, max))
    low, high = math.floor(math.log10(least)), math.log10(most)
    bars = []
    for index, (name, value, colour) in enumerate(shown):
        part = (math.log10(value) - low) / max(high - low, 1) if logarithmic else value / most
        length, y = max(1.0, BAR_WIDTH * part), index * LINE_HEIGHT
        bars.append(
            f'<text x="{NAME_WIDTH - 8}" y="{y + 15}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{NAME_WIDTH}" y="{y + 4}" width="{length:.1f}" height="14" fill="{colour}"/>'
            f'<text x="{NAME_WIDTH + length + 6:.1f}" y="{y + 15}">{format_hours(value)}</text>'
        )
    width, height = NAME_WIDTH + BAR_WIDTH + 80, LINE_HEIGHT * len(shown)
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    return f'<p>{html.escape(title)}</p><svg role="img" {size}>{"".join(bars)}</svg>'


def _notes(rows: Sequence[table.Row], receipt: Receipt) -> str:
    lines = [f"<li>{html.escape(f'{row.title}: {row.note}')}</li>" for row in rows]
    prices = html.escape(table.describe_tariff(receipt.tariff))
    return (
        f"<p>What each includes, and its source. {prices} Hours of different devices are not "
        f"comparable; a dash means not counted or not published.</p><ul>{''.join(lines)}</ul>"
    )


def _phases(receipt: Receipt) -> str:
    titles = ["started, UTC", "stage", "kind", "end", "device hours", "images", "devices", "error"]
    rows = [
        [
            phase.started[:19].replace("T", " "),
            phase.stage,
            phase.kind,
            phase.end,
            format_hours(sum(amounts.device_hours for amounts in phase.work.values())),
            f"{sum(amounts.images for amounts in phase.work.values()):,}",
            f"{phase.devices}",
            phase.error,
        ]
        for phase in receipt.phases
    ]
    return html_table([titles, *rows], (0, 1, 2, 3, 7))


def _hashes(receipt: Receipt) -> str:
    lines = [
        f"<tr><td>{html.escape(key)}</td><td><code>{html.escape(digest)}</code></td></tr>"
        for key, found in receipt.hashes.items()
        for digest in found
    ]
    devices = [f"{html.escape(name)}: {time:,.0f} s" for name, time in receipt.devices.items()]
    return f"<p>{'; '.join(devices)}</p>" + scrollable(f"<table>{''.join(lines)}</table>")
