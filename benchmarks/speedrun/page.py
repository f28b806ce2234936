"""report.html: scores, images, training and cost of a run, as one self-contained file."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from benchmarks.speedrun.classes import CLASSES
from benchmarks.speedrun.report import PAGE, Attempt, Report
from benchmarks.speedrun.samples import CAPTIONS, DRAWN, RECONSTRUCTIONS
from benchmarks.tables import digits
from wuerstchen.atomic_write import write_file
from wuerstchen.evaluation.stickers import Scores
from wuerstchen.html_page import html_image, html_page, html_table
from wuerstchen.receipts import Receipt
from wuerstchen.receipts.number_format import format_kg, format_kwh, with_unit
from wuerstchen.receipts.table import line_cells, line_header

GIGA = 1e9


def write_page(out: Path, report: Report, scores: Scores, receipt: Receipt) -> Path:
    """Beside the grids that it shows; returns its path. Raises SaveError."""
    body = "\n".join(_sections(out, report, scores, receipt))
    write_file(out / PAGE, html_page(f"Speedrun: {report.settings.of}", body))
    return out / PAGE


def _sections(out: Path, report: Report, scores: Scores, receipt: Receipt) -> Iterator[str]:
    yield html_table(list(_summary(report)), (0, 1))
    yield scores.html()
    yield "<h2>Prompts</h2>" + _grid(out, DRAWN)
    yield (
        "<h2>Captions</h2><p>Held-out scenes, then scenes of the training; below each row what "
        f"the model draws from their captions.</p>{_grid(out, CAPTIONS)}"
    )
    yield (
        "<h2>Reconstructions</h2><p>Held-out scenes; below them Stage A's copies, then what Stages "
        f"B and A draw from their semantics.</p>{_grid(out, RECONSTRUCTIONS)}"
    )
    yield "<h2>Training</h2>" + html_table(list(_stages(report)))
    yield (
        "<p>Operations are counted in one step, forward and backward: matrix products, "
        "convolutions and attention. The limit is that of large matrix products, measured in this "
        f"run: {escape(_products(report))}.</p>"
    )
    yield "<h2>Receipt</h2>" + html_table(
        [line_header(receipt.tariff.currency), *line_cells(receipt)], (0, 1), sums=True
    )
    outside = report.seconds - (report.cost.seconds if report.cost else 0)
    yield (
        f"<p>{escape('; '.join(report.cost.energy if report.cost else []))}. The clock counts "
        f"{outside:.0f} s more, most of them imports and reading the stickers.</p>"
    )
    yield "<h2>Starts</h2>" + html_table(
        [["date", "commit", "machine"], *map(_start, report.attempts)], (0, 1, 2)
    )


def _summary(report: Report) -> Iterator[Sequence[str]]:
    settings, cost, found = report.settings, report.cost, report.reconstruction
    verdict = "within" if report.in_time else "beyond"
    yield ["class", f"{settings.of}: {CLASSES[settings.of].hardware}"]
    yield ["time", f"{report.seconds:,.0f} s, {verdict} its limit of {settings.limit:,.0f} s"]
    if cost is not None:
        energy = with_unit(format_kwh(cost.kwh), "kWh")
        yield ["energy", f"{energy}, {with_unit(format_kg(cost.kg), 'kg')} of CO2"]
    if found is not None:
        yield ["Stage A", f"{found.stage_a_psnr:.2f} dB"]
        yield ["Stages B and A", f"{found.stage_b_psnr:.2f} dB, edges {found.stage_b_edges:.2f}"]
    yield ["scenes", f"{settings.scenes:,} composed of {settings.stickers:,} stickers"]
    _, commit, machine = _start(report.attempts[-1])
    yield ["commit", commit]
    yield ["machine", machine]
    yield ["changed", ", ".join(settings.changed) or "nothing"]
    yield ["record", f"no: {'; '.join(report.no_record)}" if report.no_record else "may be one"]


def _stages(report: Report) -> Iterator[list[str]]:
    names = list(report.products)
    titles = ["steps", "images", "seconds", "images/s", "loss", "TFLOP", "GFLOP/s"]
    yield ["stage", *titles, *(f"of {name} products" for name in names)]
    for stage, each in report.stages.items():
        rate = each.flops_per_second
        yield [
            stage.upper(),
            f"{each.steps:,}",
            f"{each.images:,}",
            f"{each.seconds:,.0f}",
            digits(each.images / each.seconds),
            f"{each.loss:.3g}",
            digits(each.flops / 1e12) if rate else "-",
            digits(rate / GIGA) if rate else "-",
            *(f"{rate / report.products[name]:.1%}" if rate else "-" for name in names),
        ]


def _products(report: Report) -> str:
    return ", ".join(f"{digits(rate / GIGA)} GFLOP/s in {n}" for n, rate in report.products.items())


def _start(attempt: Attempt) -> list[str]:
    run = attempt.run
    place = f"{run.accelerator}, driver {run.driver}; " if run.accelerator else ""
    what = f"{place}{run.cpu}, {run.threads} threads, {run.memory_gib:g} GiB, torch {run.torch}"
    return [run.date, run.commit, what]


def _grid(out: Path, name: str) -> str:
    return html_image((out / name).read_bytes(), "webp", name.partition(".")[0])
