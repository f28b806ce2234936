"""Page on what `wuerstchen prepare` did: report.html, one file with its images and plots."""

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, starmap
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from PIL import Image

from wuerstchen.atomic_write import write_file
from wuerstchen.data.images import open_image, pillow_warnings
from wuerstchen.data.items import ByteRange
from wuerstchen.data.prepared import SHARDS
from wuerstchen.errors import DataError
from wuerstchen.html_page import html_page, html_table
from wuerstchen.prepare.duplicates import Duplicate
from wuerstchen.prepare.parts import DroppedItem
from wuerstchen.prepare.report import DropReason, Summary, measurements

_THUMBNAIL = 112
"""Longer side in pixels."""
_KEPT_SHOWN = 32
_DROPPED_SHOWN = 8
"""Images shown for each reason."""
_REASONS_SHOWN = 12
_DUPLICATES_SHOWN = 12
_BINS = 40

_STYLE = """
.row { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0; width: 112px } figcaption { font-size: 11px; line-height: 1.25; color: #555;
         overflow-wrap: anywhere; max-height: 3.8em; overflow: hidden } .plot { width: 352px }
.pair { width: 228px } .pair div { display: flex; gap: 4px } .pair img { max-width: 112px }
"""


def write_page(
    summary: Summary,
    kept: pa.Table,
    rows: pa.Table,
    duplicates: Sequence[Duplicate],
    dropped: Sequence[DroppedItem],
    out: Path,
) -> None:
    """Write the page atomically; `kept` and `rows` as in `summarise`, with complete shards."""
    sections = [
        f"<p>{html.escape(summary.kind.capitalize())}. {summary.kept:,} of {summary.found:,} "
        f"images are kept: {summary.train:,} for training and {summary.test:,} held out; "
        f"{summary.bytes / 1e6:,.1f} MB.</p>",
        "<h2>Dropped</h2>" + _reasons(summary.dropped, summary.found),
        *_notes(summary),
        *_overlap(summary),
        "<h2>Examples of kept images</h2>" + _row(_kept_figures(kept, out)),
        "<h2>Sizes, captions and scores</h2>" + _distributions(summary) + _plots(kept),
    ]
    for reason in islice(summary.dropped, _REASONS_SHOWN):
        figures = list(_dropped_figures([item for item in dropped if item.reason == reason]))
        if figures:
            sections.append(f"<h2>Dropped: {html.escape(reason)}</h2>" + _row(figures))
    if duplicates:
        header = "<h2>Duplicates (the image on the left is kept)</h2>"
        sections.append(header + _row(_duplicate_figures(rows, duplicates, out)))
    page = html_page(f"Prepared from {summary.source}", "\n".join(sections), _STYLE)
    write_file(out / "report.html", page)


def _overlap(summary: Summary) -> Iterator[str]:
    kept = summary.equal_across_splits + summary.near_across_splits
    if dropped := summary.copies_across_splits - kept:
        yield f"<p>{dropped:,} duplicates of held-out images were dropped from the train split.</p>"
    if kept:
        yield (
            f"<p><strong>{kept:,} training images are duplicates of held-out images</strong>: "
            f"{summary.equal_across_splits:,} with equal pixels, {summary.near_across_splits:,} "
            "near duplicates. Measurements on held-out images are too optimistic because of "
            "them.</p>"
        )


def _notes(summary: Summary) -> Iterator[str]:
    if summary.ignored:
        yield "<h2>Kept without</h2>" + _reasons(summary.ignored, summary.found)
    if summary.left_out:
        counts = (f"{count:,} × {html.escape(name)}" for name, count in summary.left_out.items())
        yield f"<p>No data: {', '.join(counts)}.</p>"


def _reasons(reasons: Mapping[str, DropReason], total: int) -> str:
    if not reasons:
        return "<p>None.</p>"
    table = [("reason", "images", "fraction", "examples")]
    for reason, found in reasons.items():
        fraction = f"{found.count / total:.1%}"
        table.append((reason, f"{found.count:,}", fraction, ", ".join(found.examples[:3])))
    return html_table(table, (0, 3))


def _distributions(summary: Summary) -> str:
    header = ("", "minimum", "lower quartile", "median", "upper quartile", "maximum")
    rows = [
        (name, *(f"{x:,.4g}" for x in (s.least, s.quarter, s.median, s.three_quarters, s.most)))
        for name, s in summary.spreads.items()
    ]
    return html_table([header, *rows])


def _plots(kept: pa.Table) -> str:
    found = [(name, x) for name, x in measurements(kept).items() if len(np.unique(x)) > 1]
    return _row(starmap(_plot, found)) if found else ""


def _plot(name: str, values: np.ndarray) -> str:
    """A histogram as an image of its own, so that a narrow window stacks them at full size."""
    figure = Figure(figsize=(3.2, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=_BINS, color="#0072B2")
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=220)  # twice the size shown, for fine screens
    alt = html.escape(f"histogram: {name}")
    return f'<img class="plot" alt="{alt}" src="{_data_url(content.getvalue(), "png")}">'


def _kept_figures(kept: pa.Table, out: Path) -> Iterator[str]:
    count = min(_KEPT_SHOWN, len(kept))
    for row in np.linspace(0, len(kept) - 1, count).astype(int).tolist():
        image = _thumbnail(_image_file(kept, row, out / SHARDS))
        yield _figure(image, str(kept.column("captions")[row].as_py()[0]))


def _dropped_figures(dropped: Sequence[DroppedItem]) -> Iterator[str]:
    for item in dropped[:_DROPPED_SHOWN]:
        file = item.image()
        if file is not None and (image := _thumbnail(file)):
            yield _figure(image, item.key)


def _duplicate_figures(rows: pa.Table, duplicates: Sequence[Duplicate], out: Path) -> Iterator[str]:
    for row, original, _ in duplicates[:_DUPLICATES_SHOWN]:
        images = [_thumbnail(_image_file(rows, each, out / "parts")) for each in (original, row)]
        key = str(rows.column("key")[row].as_py())
        yield _figure(f"<div>{''.join(images)}</div>", key, ' class="pair"')


def _image_file(table: pa.Table, row: int, folder: Path) -> ByteRange:
    shard, offset, size = (table.column(name)[row].as_py() for name in ("shard", "offset", "bytes"))
    return ByteRange(folder / shard, offset, size)


def _row(figures: Iterable[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'


def _figure(image: str, caption: str, kind: str = "") -> str:
    caption = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f"<figure{kind}>{image}{caption}</figure>" if image else ""


def _thumbnail(file: ByteRange) -> str:
    """An <img> with its data inside; empty if the image cannot be shown."""
    try:
        with pillow_warnings():
            image = open_image(file.read(), _THUMBNAIL, "white").image
    except (OSError, DataError):
        return ""
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return f'<img loading="lazy" alt="" src="{_data_url(content.getvalue(), "jpeg")}">'


def _data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
