"""Sources of distinct images, written as users have them, and readers of prepared sets."""

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

Files = dict[str, bytes | str]


@cache
def drawing(seed: int, width: int = 300, height: int = 300) -> Image.Image:
    """Soft coloured shapes, different for every seed."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(rng.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(width // 8, width // 2), rng.integers(height // 8, height // 2)
        colour = tuple(rng.integers(0, 256, 3).tolist())
        pen.ellipse((x - w // 2, y - h // 2, x + w // 2, y + h // 2), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(1))


def as_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def some(count: int, first: int = 0, **size: int) -> Files:
    """Images with captions and metadata fields."""
    files: Files = {}
    for k in range(first, first + count):
        files[f"{k:03d}.png"] = _drawing_as_png(k, **size)
        captions = [f"image {k}", f"another caption of {k}"]
        files[f"{k:03d}.txt"] = "\n".join(captions)
        fields = {"number": k, "name": f"group {k // 2}", "captions": captions}
        files[f"{k:03d}.json"] = json.dumps(fields)
    return files


@cache
def _drawing_as_png(seed: int, **size: int) -> bytes:
    return as_bytes(drawing(seed, **size))


def rows(folder: Path) -> list[dict[str, object]]:
    """The index of a prepared set, read by pyarrow alone."""
    import pyarrow.parquet as pq

    found: list[dict[str, object]] = pq.read_table(folder / "index.parquet").to_pylist()
    return found


def report(folder: Path) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(
        (folder / "report.json").read_text()
    )
    return found


def dropped(folder: Path) -> dict[str, int]:
    """Number of dropped images by reason."""
    return {reason: int(str(each["count"])) for reason, each in report(folder)["dropped"].items()}


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a prepared set except pages and receipts, which contain times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("report.html", "receipt.html", "receipt.json")
        and path.parent.name not in ("runs", "open")
    }


@pytest.fixture(autouse=True)
def without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take three quarters of the time of a small preparation; `plots` brings them back."""
    if "plots" not in request.fixturenames:
        monkeypatch.setattr("wuerstchen.prepare.report_page._plots", lambda kept: "")
