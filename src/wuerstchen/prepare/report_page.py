"""What `wuerstchen prepare` did, for people: report.html, one file with its images and plots."""

import base64
import html
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from PIL import Image

from wuerstchen.atomic_write import write_file
from wuerstchen.data.images import open_image
from wuerstchen.data.items import ByteRange
from wuerstchen.data.prepared import SHARDS
from wuerstchen.errors import DataError
from wuerstchen.html_page import html_page, html_table
from wuerstchen.prepare.report import Copy, Summary, numbers
from wuerstchen.prepare.shards import Dropped, place_of

THUMB = 112
"""Pixels of the longer side of a small image."""
KEPT_SHOWN = 32
DROPPED_SHOWN = 8
"""Images shown for each reason."""
COPIES_SHOWN = 12
BINS = 40

STYLE = """
.row { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0; width: 112px } figcaption { font-size: 11px; line-height: 1.25; color: #555;
         overflow-wrap: anywhere; max-height: 3.8em; overflow: hidden }
.plot { width: 352px }
.pair { width: 228px } .pair div { display: flex; gap: 4px } .pair img { max-width: 112px }
"""


def write_page(
    path: Path,
    summary: Summary,
    kept: pa.Table,
    rows: pa.Table,
    copies: Sequence[Copy],
    dropped: Sequence[Dropped],
    out: Path,
) -> None:
    """Write the page aside and rename it.

    kept, rows  tables as in `summarise`; `kept` has its places in the final shards
    """
    body = "\n".join(_sections(summary, kept, rows, copies, dropped, out))
    write_file(path, html_page(f"Prepared from {summary.source}", body, STYLE))


def _sections(
    summary: Summary,
    kept: pa.Table,
    rows: pa.Table,
    copies: Sequence[Copy],
    dropped: Sequence[Dropped],
    out: Path,
) -> Iterator[str]:
    yield (
        f"<p>{html.escape(summary.kind.capitalize())}. {summary.kept:,} of {summary.found:,} are "
        f"kept: {summary.train:,} to train and {summary.test:,} held out; "
        f"{summary.bytes / 1e6:,.1f} MB.</p>"
    )
    yield "<h2>Dropped</h2>" + _reasons(summary)
    left = summary.equal_across_splits + summary.near_across_splits
    if gone := summary.copies_across_splits - left:
        yield (
            f"<p>{gone:,} copies of held-out images stood among those to train with, and were "
            "dropped there.</p>"
        )
    if left:
        yield (
            f"<p><strong>{left:,} copies of held-out images are among those to train with"
            f"</strong>: {summary.equal_across_splits:,} with equal pixels, "
            f"{summary.near_across_splits:,} that look the same. What is measured on the "
            "held-out ones is too good by that.</p>"
        )
    yield "<h2>Kept, a sample</h2>" + _row(_kept(kept, out))
    yield "<h2>Sizes, captions, scores</h2>" + _spreads(summary) + _plots(kept)
    for reason in list(summary.dropped)[:12]:
        shown = [each for each in dropped if each.reason == reason]
        figures = list(_dropped(shown))
        if figures:
            yield f"<h2>Dropped: {html.escape(reason)}</h2>" + _row(figures)
    if copies:
        yield "<h2>Copies, left the one that stays</h2>" + _row(_pairs(rows, copies, out))


def _reasons(summary: Summary) -> str:
    if not summary.dropped:
        return "<p>Nothing.</p>"
    rows = [
        (
            reason,
            f"{found.count:,}",
            f"{found.count / summary.found:.1%}",
            ", ".join(found.examples[:3]),
        )
        for reason, found in summary.dropped.items()
    ]
    return html_table([("reason", "images", "share", "such as"), *rows], (0, 3))


def _spreads(summary: Summary) -> str:
    head = ("", "least", "quarter", "median", "three quarters", "most")
    rows = [
        (name, *(f"{x:,.4g}" for x in (s.least, s.quarter, s.median, s.three_quarters, s.most)))
        for name, s in summary.spreads.items()
    ]
    return html_table([head, *rows])


def _plots(kept: pa.Table) -> str:
    found = {name: values for name, values in numbers(kept).items() if len(np.unique(values)) > 1}
    if not found:
        return ""
    return _row(_plot(name, values) for name, values in found.items())


def _plot(name: str, values: np.ndarray) -> str:
    """An image for each, so that a narrow window sets them below each other and not smaller."""
    figure = Figure(figsize=(3.2, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=BINS, color="#0072B2")
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=220)  # twice what is shown, for fine screens
    alt = html.escape(f"histogram: {name}")
    return f'<img class="plot" alt="{alt}" src="{_source(content.getvalue(), "png")}">'


def _kept(kept: pa.Table, out: Path) -> Iterator[str]:
    count = min(KEPT_SHOWN, len(kept))
    for row in np.linspace(0, len(kept) - 1, count).astype(int).tolist():
        yield _figure(_place(kept, row, out / SHARDS), str(kept.column("captions")[row].as_py()[0]))


def _dropped(shown: Sequence[Dropped]) -> Iterator[str]:
    for each in shown[:DROPPED_SHOWN]:
        place = place_of(each)
        if place is not None and (figure := _figure(place, each.key)):
            yield figure


def _pairs(rows: pa.Table, copies: Sequence[Copy], out: Path) -> Iterator[str]:
    for copy in copies[:COPIES_SHOWN]:
        sides = [_thumb(_place(rows, row, out / "parts")) for row in (copy.of, copy.row)]
        key = html.escape(str(rows.column("key")[copy.row].as_py()))
        yield (
            f'<figure class="pair"><div>{"".join(sides)}</div>'
            f"<figcaption>{key}</figcaption></figure>"
        )


def _place(table: pa.Table, row: int, folder: Path) -> ByteRange:
    shard, offset, size = (table.column(name)[row].as_py() for name in ("shard", "offset", "bytes"))
    return ByteRange(folder / shard, offset, size)


def _row(figures: Iterable[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'


def _figure(place: ByteRange, words: str) -> str:
    thumb = _thumb(place)
    return f"<figure>{thumb}<figcaption>{html.escape(words)}</figcaption></figure>" if thumb else ""


def _thumb(place: ByteRange) -> str:
    """The image, small and inside the page; nothing where it cannot be shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused all the same
            image = open_image(place.read(), THUMB, "white").image
    except (OSError, DataError):
        return ""
    image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return f'<img loading="lazy" alt="" src="{_source(content.getvalue(), "jpeg")}">'


def _source(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
