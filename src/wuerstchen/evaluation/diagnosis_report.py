"""A diagnosis as text, tables, an image grid and a self-contained HTML page."""

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.evaluation.diagnosis import DenoisingCurves, Detail, Diagnosis, Recognition
from wuerstchen.evaluation.distribution_distance import SemanticsDistance
from wuerstchen.evaluation.grid import labelled_grid, png_bytes, save_image, to_pil
from wuerstchen.evaluation.metrics import BANDS
from wuerstchen.evaluation.reconstruction import PATHS
from wuerstchen.html_page import html_page, html_table

LABELS = ("A alone", "B + A from true semantics", "all three from the caption")
"""Of the paths."""

THUMBNAIL = 256
"""Pixels of the longer side of an image on the page; larger ones are scaled down."""

PLOT_WIDTH, PLOT_HEIGHT, MARGIN = 420, 220, 40
"""Pixels of a plot and of the margin for its labels."""

STYLE = """
.verdict { font-size: 1.1rem; font-weight: 600 }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; margin-bottom: 1rem }
figure { margin: 0 } figcaption { font-size: 12px; line-height: 1.3; color: #555 }
img { width: 100% }
svg { margin-right: 1.5rem } svg text { font-size: 11px; fill: #555 }
"""

COLOURS = {"held-out": "#0072B2", "training": "#E69F00", "baseline": "#999999"}

FILES = ("diagnosis.json", "diagnosis.png", "diagnosis.html")
"""What `save` writes."""

Rows = list[list[str]]
"""The first is the header."""


def save(found: Diagnosis, folder: Path) -> list[Path]:
    """Write diagnosis.json, diagnosis.png and diagnosis.html into `folder`; returns the paths.

    Raises SaveError where the folder cannot be written.
    """
    paths = [folder / name for name in FILES]
    write_file(paths[0], found.to_json().encode())
    save_image(paths[1], grid(found))
    write_file(paths[2], page(found))
    return paths


def lines(found: Diagnosis) -> Iterator[str]:
    """The verdict, then the tables with aligned columns."""
    yield from found.verdict.sentences
    for title, rows in tables(found).items():
        yield ""
        yield title
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            yield "  ".join([f"  {first:{widths[0]}}", *cells])


def tables(found: Diagnosis) -> dict[str, Rows]:
    """Tables by title."""
    return {
        "Reconstruction error on held-out images": _errors(found.detail),
        "Contrast kept, by frequency band": _contrasts(found.detail),
        "Training captions whose object is recognised": _recognition(found.recognition),
        "Semantics generated for held-out captions, compared with the true ones": _semantics(
            found.semantics
        ),
        "Denoising error by noise level": _denoising(found),
    }


def grid(found: Diagnosis) -> Image.Image:
    """A row per example: the original, and the reconstruction of each path."""
    images, labels = [], []
    for row in found.examples:
        images += [to_pil(image) for image in (row.original, *row.reconstructions)]
        labels += [row.caption, *LABELS]
    return labelled_grid(images, labels, columns=1 + len(LABELS))


def page(found: Diagnosis) -> bytes:
    """The whole document; it needs no other file and no network."""
    title = f"Which stage limits {found.settings['model']}"
    return html_page(title, "\n".join(_sections(found)), STYLE)


def _errors(detail: Detail) -> Rows:
    rows = [["", "PSNR, dB", "95 %", "fraction of error", *(f"of {band}" for band in BANDS)]]
    for k, (label, figure) in enumerate(zip(LABELS, detail.psnr, strict=False)):
        bands = [detail.band_fractions[band] for band in BANDS]
        rows.append(
            [
                label,
                f"{figure.value:.2f}",
                figure.interval("{:.2f}".format),
                *_percents([detail.error_fractions[k]]),
                *_percents(bands if k == 0 else [1 - fraction for fraction in bands]),
            ]
        )
    return rows


def _contrasts(detail: Detail) -> Rows:
    kept = [[f"{detail.contrasts[path][band]:.2f}" for band in BANDS] for path in PATHS]
    return [["", *BANDS], *([label, *row] for label, row in zip(LABELS, kept, strict=True))]


def _recognition(found: Recognition) -> Rows:
    rows = [["", "recognised", "95 %", "n", "lost here", "fraction of lost"]]
    known = found.loss_fractions
    fractions = ["-"] * len(LABELS) if known is None else _percents(known)
    for label, accuracy, loss, fraction in zip(
        LABELS, found.accuracy, found.lost, fractions, strict=True
    ):
        value, lost = _percents([accuracy.value, loss.fraction])
        interval = accuracy.interval("{:.1%}".format)
        rows.append([label, value, interval, str(accuracy.n), lost, fraction])
    return rows


def _semantics(found: SemanticsDistance) -> Rows:
    figures = (found.frechet, found.chance, found.over_chance, found.std_ratio)
    return [
        ["Fréchet distance", "by chance", "times chance", "ratio of standard deviations"],
        [f"{figure:.2f}" for figure in figures],
    ]


def _denoising(found: Diagnosis) -> Rows:
    columns = {
        f"{stage} {name}": curve
        for stage, curves in (("B", found.denoising_b), ("C", found.denoising_c))
        for name, curve in zip(COLOURS, _curves(curves), strict=True)
    }
    errors = zip(found.times, *columns.values(), strict=True)
    return [
        ["t", *columns],
        *([f"{t:.2f}", *(f"{error:.4f}" for error in row)] for t, *row in errors),
    ]


def _percents(fractions: Sequence[float]) -> list[str]:
    return [f"{fraction:.1%}" for fraction in fractions]


def _curves(found: DenoisingCurves) -> tuple[Sequence[float], ...]:
    """In the order of `COLOURS`."""
    return found.held_out, found.training, found.baseline


def _sections(found: Diagnosis) -> Iterator[str]:
    first, *notes = found.verdict.sentences
    yield f'<p class="verdict">{html.escape(first)}</p>'
    if notes:
        yield "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>"
    for name, rows in tables(found).items():
        yield f"<h2>{html.escape(name)}</h2>" + html_table(rows)
    plots = {"Stage B": found.denoising_b, "Stage C": found.denoising_c}
    yield "<p>" + "".join(_plot(*each, found.times) for each in plots.items()) + "</p>"
    yield "<h2>Held-out images</h2>"
    for row in found.examples:
        captions = (f"original: {row.caption}", *LABELS)
        figures = map(_figure, (row.original, *row.reconstructions), captions)
        yield f'<div class="row">{"".join(figures)}</div>'
    settings = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    yield f"<p><small>{html.escape(settings)}</small></p>"


def _plot(name: str, found: DenoisingCurves, times: Sequence[float]) -> str:
    """Errors against time as SVG, from 0 to the largest of all."""
    curves = _curves(found)
    top = max(max(curve) for curve in curves) or 1.0
    polylines = []
    for (label, colour), curve in zip(COLOURS.items(), curves, strict=True):
        points = " ".join(
            f"{MARGIN + t * PLOT_WIDTH:.1f},{MARGIN + (1 - y / top) * PLOT_HEIGHT:.1f}"
            for t, y in zip(times, curve, strict=True)
        )
        polylines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{label}</title></polyline>"
        )
    legend = "".join(
        f'<text x="{MARGIN + 130 + 90 * k}" y="20" style="fill:{colour}">{label}</text>'
        for k, (label, colour) in enumerate(COLOURS.items())
    )
    right, bottom = MARGIN + PLOT_WIDTH, MARGIN + PLOT_HEIGHT
    return (
        f'<svg viewBox="0 0 {right + MARGIN} {bottom + MARGIN}" width="{right + MARGIN}">'
        f'<text x="{MARGIN}" y="20">{name}</text>{legend}'
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{right}" fill="none" stroke="#bbb"/>'
        f'<text x="2" y="{MARGIN + 4}">{top:.2g}</text><text x="22" y="{bottom}">0</text>'
        f'<text x="{MARGIN}" y="{bottom + 16}">t = 0, data</text>'
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">t = 1, noise</text>'
        f"{''.join(polylines)}</svg>"
    )


def _figure(image: Tensor, caption: str) -> str:
    thumbnail = to_pil(image)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = base64.b64encode(png_bytes(thumbnail)).decode()
    return (
        f'<figure><img loading="lazy" alt="{html.escape(caption, quote=True)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{html.escape(caption)}</figcaption>'
        "</figure>"
    )
