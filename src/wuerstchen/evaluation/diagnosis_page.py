"""The files of a diagnosis: figures, a grid of images, and a page that holds all."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.evaluation.diagnosis import Denoising, Diagnosis
from wuerstchen.evaluation.diagnosis_tables import LABELS, tables
from wuerstchen.evaluation.grid import labelled_grid, to_pil
from wuerstchen.evaluation.report import save_image
from wuerstchen.html_page import html_page, html_table

THUMB = 256
"""Pixels of the longer side of an image: larger ones are shown smaller."""

CURVE_WIDTH, CURVE_HEIGHT, MARGIN = 420, 220, 40
"""Pixels of a plot, and around it for its numbers."""

STYLE = """
.verdict { font-size: 1.1rem; font-weight: 600 }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; margin-bottom: 1rem }
figure { margin: 0 } figcaption { font-size: 12px; line-height: 1.3; color: #555 }
img { width: 100% }
svg { margin-right: 1.5rem } svg text { font-size: 11px; fill: #555 }
"""

COLOURS = {"held out": "#0072B2", "training": "#E69F00", "guess": "#999999"}


def save(found: Diagnosis, folder: Path) -> list[Path]:
    """Write diagnosis.json, diagnosis.png and diagnosis.html into `folder`; returns the paths.

    Raises SaveError where the folder cannot be written.
    """
    paths = [folder / f"diagnosis.{suffix}" for suffix in ("json", "png", "html")]
    write_file(paths[0], found.to_json().encode())
    save_image(paths[1], grid(found))
    write_file(paths[2], page(found))
    return paths


def grid(found: Diagnosis) -> Image.Image:
    """Rows of true image, A alone, B + A from true semantics, and all three stages."""
    images, labels = [], []
    for row in found.shown:
        images += [to_pil(image) for image in (row.true, *row.ways)]
        labels += [row.caption, *LABELS]
    return labelled_grid(images, labels, columns=1 + len(LABELS))


def page(found: Diagnosis) -> bytes:
    """The whole document; it needs no other file and no network."""
    title = f"Which stage limits {found.settings['model']}"
    return html_page(title, "\n".join(_sections(found)), STYLE)


def _sections(found: Diagnosis) -> Iterator[str]:
    first, *notes = found.verdict.sentences
    yield f'<p class="verdict">{html.escape(first)}</p>'
    if notes:
        yield "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>"
    for name, rows in tables(found).items():
        yield f"<h2>{html.escape(name)}</h2>" + html_table(rows)
    yield _curves(found.denoising)
    yield "<h2>Held-out images</h2>"
    for row in found.shown:
        words = (f"true image: {row.caption}", *LABELS)
        figures = map(_figure, (row.true, *row.ways), words)
        yield f'<div class="row">{"".join(figures)}</div>'
    settings = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    yield f"<p><small>{html.escape(settings)}</small></p>"


def _curves(found: Denoising) -> str:
    stages = {
        "Stage B": (found.held_out_b, found.trained_b, found.guess_b),
        "Stage C": (found.held_out_c, found.trained_c, found.guess_c),
    }
    return "<p>" + "".join(_plot(name, found.times, c) for name, c in stages.items()) + "</p>"


def _plot(name: str, times: Sequence[float], curves: Sequence[Sequence[float]]) -> str:
    """Errors against time, from 0 to the largest of all."""
    top = max(max(curve) for curve in curves) or 1.0
    lines = []
    for (what, colour), curve in zip(COLOURS.items(), curves, strict=True):
        points = " ".join(
            f"{MARGIN + t * CURVE_WIDTH:.1f},{MARGIN + (1 - y / top) * CURVE_HEIGHT:.1f}"
            for t, y in zip(times, curve, strict=True)
        )
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{what}</title></polyline>"
        )
    words = "".join(
        f'<text x="{MARGIN + 130 + 90 * k}" y="20" style="fill:{colour}">{what}</text>'
        for k, (what, colour) in enumerate(COLOURS.items())
    )
    right, low = MARGIN + CURVE_WIDTH, MARGIN + CURVE_HEIGHT
    return (
        f'<svg viewBox="0 0 {right + MARGIN} {low + MARGIN}" width="{right + MARGIN}">'
        f'<text x="{MARGIN}" y="20">{name}</text>{words}'
        f'<path d="M{MARGIN} {MARGIN}V{low}H{right}" fill="none" stroke="#bbb"/>'
        f'<text x="2" y="{MARGIN + 4}">{top:.2g}</text><text x="22" y="{low}">0</text>'
        f'<text x="{MARGIN}" y="{low + 16}">t = 0, data</text>'
        f'<text x="{right}" y="{low + 16}" text-anchor="end">t = 1, noise</text>'
        f"{''.join(lines)}</svg>"
    )


def _figure(image: Tensor, words: str) -> str:
    thumbnail = to_pil(image)
    thumbnail.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    thumbnail.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    text = html.escape(words)
    return (
        f'<figure><img loading="lazy" alt="{html.escape(words, quote=True)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
    )
