"""Sources of images that differ from each other, written as users have them."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Files = dict[str, bytes | str]


def drawing(seed: int, width: int = 300, height: int = 300) -> Image.Image:
    """Soft coloured shapes, of which every seed has others."""
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
    """Images with captions and side fields."""
    files: Files = {}
    for k in range(first, first + count):
        files[f"{k:03d}.png"] = as_bytes(drawing(k, **size))
        files[f"{k:03d}.txt"] = f"image {k}\nanother caption of {k}"
        files[f"{k:03d}.json"] = json.dumps({"number": k, "name": f"group {k // 2}"})
    return files


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
    """Images by the reason why they were dropped."""
    return {reason: int(str(each["count"])) for reason, each in report(folder)["dropped"].items()}
