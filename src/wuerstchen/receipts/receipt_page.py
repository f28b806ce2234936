"""A receipt for people: receipt.html, one file that needs nothing else."""

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from wuerstchen.atomic_write import write_file
from wuerstchen.html_page import html_page, html_table, wide
from wuerstchen.receipts.attribution import FAILED
from wuerstchen.receipts.compare import (
    Row,
    heads,
    heads_of_lines,
    lines_of,
    row_of,
    row_of_published,
    tariff,
)
from wuerstchen.receipts.published import PUBLISHED
from wuerstchen.receipts.receipt import Receipt
from wuerstchen.receipts.units import hours, kilograms, kilowatt_hours, number, with_unit

STYLE = """
svg text { font: 12px system-ui, sans-serif } code { font-size: 12px; overflow-wrap: anywhere }
"""

BLUE, RED, GREY = "#0072B2", "#D55E00", "#999999"
NAMES, BARS = 240, 520
"""Pixels of the names and of the longest bar."""
LINE = 22


def write_page(path: Path, receipt: Receipt) -> None:
    """Write the page aside and rename it; SaveError where that cannot be."""
    body = "\n".join(_sections(receipt))
    write_file(path, html_page(f"Receipt of {receipt.name}", body, STYLE))


def _sections(receipt: Receipt) -> Iterator[str]:
    own = row_of(receipt)
    rows = [own, *(row_of_published(entry, receipt.terms) for entry in PUBLISHED.values())]
    currency = receipt.terms.currency
    yield f"<p>{html.escape(_summary(receipt))}</p><p>Counted: {html.escape(own.note)}</p>"
    yield "<h2>By stage and kind of work</h2>"
    yield html_table([heads_of_lines(currency), *lines_of(receipt)], (0, 1), sums=True)
    yield _bars(
        "Device hours",
        [
            (
                f"{line.stage}, {line.kind}",
                line.amounts.device_hours,
                RED if line.kind == FAILED else BLUE,
            )
            for line in receipt.lines
        ],
    )
    yield "<h2>Beside published ones</h2>"
    yield html_table([heads(currency), *(row.cells() for row in rows)], (0, 8))
    yield _bars(
        "Device hours, each step to the right ten times as many",
        [(row.title, row.device_hours or 0.0, BLUE if row is own else GREY) for row in rows],
        steps_of_ten=True,
    )
    yield _notes(rows, receipt)
    yield "<h2>Phases</h2>" + _phases(receipt)
    yield "<h2>What ran</h2>" + _hashes(receipt)


def _summary(receipt: Receipt) -> str:
    amounts, failed = receipt.total, receipt.failed
    began = min((phase.started[:16].replace("T", " ") for phase in receipt.phases), default="")
    return (
        f"Begun {began} UTC, {len(receipt.phases)} phases, {_time(amounts.device_hours)} of a "
        f"device, {_time(failed.device_hours)} of it in failed tries; "
        f"{with_unit(kilowatt_hours(amounts.kwh), 'kWh')}, "
        f"{with_unit(kilograms(amounts.kg), 'kg')} of CO2. {tariff(receipt.terms)}"
    )


def _time(value: float) -> str:
    """Hours in the unit that suits them."""
    for unit, size in (("hours", 1.0), ("minutes", 60.0)):
        if value * size >= 1:
            return f"{number(value * size)} {unit}"
    return f"{number(value * 3600)} seconds"


def _bars(
    title: str, values: Sequence[tuple[str, float, str]], *, steps_of_ten: bool = False
) -> str:
    """Name, value and colour of each bar; those without a value are left out."""
    shown = [(name, value, colour) for name, value, colour in values if value > 0]
    if not shown:
        return ""
    least, most = (pick(value for _, value, _ in shown) for pick in (min, max))
    bottom, top = math.floor(math.log10(least)), math.log10(most)
    drawn = []
    for index, (name, value, colour) in enumerate(shown):
        share = value / most
        if steps_of_ten:
            share = (math.log10(value) - bottom) / max(top - bottom, 1)
        length, y = max(1.0, BARS * share), index * LINE
        drawn.append(
            f'<text x="{NAMES - 8}" y="{y + 15}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{NAMES}" y="{y + 4}" width="{length:.1f}" height="14" fill="{colour}"/>'
            f'<text x="{NAMES + length + 6:.1f}" y="{y + 15}">{hours(value)}</text>'
        )
    width, height = NAMES + BARS + 80, LINE * len(shown)
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    return f'<p>{html.escape(title)}</p><svg role="img" {size}>{"".join(drawn)}</svg>'


def _notes(rows: Sequence[Row], receipt: Receipt) -> str:
    lines = [f"<li>{html.escape(f'{row.title}: {row.note}')}</li>" for row in rows]
    return (
        f"<p>What counts in each, and where it is from. {html.escape(tariff(receipt.terms))} "
        "Hours of unlike devices are not the same work; a dash is what was not counted or not "
        f"published.</p><ul>{''.join(lines)}</ul>"
    )


def _phases(receipt: Receipt) -> str:
    head = ["begun, UTC", "stage", "kind", "end", "device hours", "images", "devices", "error"]
    rows = [
        [
            phase.started[:19].replace("T", " "),
            phase.stage,
            phase.kind,
            phase.end,
            hours(sum(amounts.device_hours for amounts in phase.work.values())),
            f"{sum(amounts.images for amounts in phase.work.values()):,}",
            f"{phase.devices}",
            phase.error,
        ]
        for phase in receipt.phases
    ]
    return html_table([head, *rows], (0, 1, 2, 3, 7))


def _hashes(receipt: Receipt) -> str:
    lines = [
        f"<tr><td>{html.escape(key)}</td><td><code>{html.escape(digest)}</code></td></tr>"
        for key, found in receipt.hashes.items()
        for digest in found
    ]
    devices = [
        f"{html.escape(name)}: {seconds:,.0f} s" for name, seconds in receipt.devices.items()
    ]
    return f"<p>{'; '.join(devices)}</p>" + wide(f"<table>{''.join(lines)}</table>")
