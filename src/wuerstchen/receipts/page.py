"""A receipt for people: receipt.html, one file that needs nothing else."""

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from wuerstchen.aside import write_file
from wuerstchen.receipts.compare import (
    Row,
    heads,
    heads_of_lines,
    lines_of,
    number,
    row_of,
    row_of_published,
    tariff,
)
from wuerstchen.receipts.published import PUBLISHED
from wuerstchen.receipts.receipt import Receipt
from wuerstchen.receipts.sorting import FAILED

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left;
        vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr.all td { border-top: 1px solid #999; font-weight: 600 }
svg text { font: 12px system-ui, sans-serif } code { font-size: 12px; overflow-wrap: anywhere }
"""

BLUE, RED, GREY = "#0072B2", "#D55E00", "#999999"
NAMES, BARS = 240, 520
"""Pixels of the names and of the longest bar."""
LINE = 22


def write_page(path: Path, receipt: Receipt) -> None:
    """Write the page aside and rename it; SaveError where that cannot be."""
    title = html.escape(f"Receipt of {receipt.name}")
    body = "\n".join(_sections(receipt))
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
    write_file(path, page.encode("utf-8", "replace"))


def _sections(receipt: Receipt) -> Iterator[str]:
    own = row_of(receipt)
    rows = [own, *(row_of_published(entry, receipt.terms) for entry in PUBLISHED.values())]
    currency = receipt.terms.currency
    yield f"<p>{html.escape(_summary(receipt))}</p><p>{html.escape(own.note)}</p>"
    yield "<h2>By stage and kind of work</h2>"
    yield _table([heads_of_lines(currency), *lines_of(receipt)], (0, 1), sums=True)
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
    yield _table([heads(currency), *(row.cells() for row in rows)], (0, 8))
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
        f"Begun {began} UTC, {len(receipt.phases)} phases, {number(amounts.device_hours)} device "
        f"hours, {number(failed.device_hours)} of them in failed tries; {number(amounts.kwh)} kWh, "
        f"{number(amounts.kg)} kg CO2. {tariff(receipt.terms)}"
    )


def _table(rows: Sequence[Sequence[str]], texts: Sequence[int], *, sums: bool = False) -> str:
    """The first row is the head; with `sums` the last one adds up the others."""
    lines = []
    for place, row in enumerate(rows):
        tag = "td" if place else "th"
        number_tag = f'{tag} class="number"'
        cells = [
            f"<{tag if index in texts else number_tag}>{html.escape(cell)}</{tag}>"
            for index, cell in enumerate(row)
        ]
        kind = ' class="all"' if sums and place == len(rows) - 1 else ""
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


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
            f'<text x="{NAMES + length + 6:.1f}" y="{y + 15}">{number(value)}</text>'
        )
    size = f'width="{NAMES + BARS + 80}" height="{LINE * len(shown)}"'
    return f'<p>{html.escape(title)}</p><svg role="img" {size}>{"".join(drawn)}</svg>'


def _notes(rows: Sequence[Row], receipt: Receipt) -> str:
    lines = [f"<li>{html.escape(f'{row.title}: {row.note}')}</li>" for row in rows]
    return (
        f"<p>What counts in each, and where it is from. {html.escape(tariff(receipt.terms))} "
        "Hours of unlike devices are not the same work; a dash is what was not counted or not "
        f"published.</p><ul>{''.join(lines)}</ul>"
    )


def _phases(receipt: Receipt) -> str:
    head = ["begun, UTC", "stage", "kind", "end", "device hours", "pictures", "devices", "error"]
    rows = [
        [
            phase.started[:19].replace("T", " "),
            phase.stage,
            phase.kind,
            phase.end,
            number(sum(amounts.device_hours for amounts in phase.work.values())),
            f"{sum(amounts.images for amounts in phase.work.values()):,}",
            f"{phase.devices}",
            phase.error,
        ]
        for phase in receipt.phases
    ]
    return _table([head, *rows], (0, 1, 2, 3, 7))


def _hashes(receipt: Receipt) -> str:
    lines = [
        f"<tr><td>{html.escape(key)}</td><td><code>{html.escape(digest)}</code></td></tr>"
        for key, found in receipt.hashes.items()
        for digest in found
    ]
    devices = [
        f"{html.escape(name)}: {seconds:,.0f} s" for name, seconds in receipt.devices.items()
    ]
    return f"<p>{'; '.join(devices)}</p><table>{''.join(lines)}</table>"
