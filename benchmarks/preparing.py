"""Seconds and memory of `wuerstchen prepare` by the number of images.

    python -m benchmarks.preparing DATA [--counts 10000,100000] [--out docs/benchmarks]

Sources of any size are generated from the images of DATA: random crops, rotated at random, blended
with a random brightness field, so that no two are alike; 128 pixels, as JPEG in webdataset tars
of 1,000. Each is prepared, and opened as training opens it, in separate processes.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.records import ROOT, Run, this_run
from benchmarks.tables import digits, machine, save_page, table
from wuerstchen.atomic_write import write_file
from wuerstchen.config import DataConfig
from wuerstchen.data import open_pairs

SIDE, SHARD, FIELD = 128, 1000, 5
OPEN = """
import sys
from wuerstchen.config import DataConfig
from wuerstchen.data import open_pairs
train, test, _ = open_pairs(DataConfig(path=sys.argv[1], size=128))
assert train.image(len(train) - 1).shape == (3, 128, 128)
"""


class Spent(NamedTuple):
    """Cost of a process."""

    seconds: float
    peak: int
    """Peak resident memory in bytes."""


class Row(NamedTuple):
    """The cost of one source."""

    images: int
    kept: int
    """The others count as duplicates."""
    prepare: Spent
    open: Spent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparing", description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--counts", default="10000,100000")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [
            measure_row(options.data, int(each), Path(name)) for each in options.counts.split(",")
        ]
    content = {"run": this_run("none").model_dump(), "rows": rows}
    write_file(options.out / "preparing.json", json.dumps(content, indent=1).encode())
    print(write_page(options.out))


def measure_row(data: str, count: int, scratch: Path) -> Row:
    source, prepared = scratch / f"source-{count}", scratch / f"prepared-{count}"
    write_source(data, source, count)
    command = ("-m", "wuerstchen", "prepare", str(source), str(prepared), f"size={SIDE}")
    spent = run_python(*command)
    opened = run_python("-c", OPEN, str(prepared))
    report = json.loads((prepared / "report.json").read_text(encoding="utf-8"))
    row = Row(count, report["kept"], spent, opened)
    print(row, flush=True)
    return row


def write_source(data: str, folder: Path, count: int) -> None:
    """Write tars with `count` different images."""
    folder.mkdir()
    pairs, _, _ = open_pairs(DataConfig(path=data, size=2 * SIDE))
    random = np.random.default_rng(0)
    for start in range(0, count, SHARD):
        with tarfile.open(folder / f"{start // SHARD:05}.tar", "w") as tar:
            for number in range(start, min(start + SHARD, count)):
                pair = int(random.integers(len(pairs)))
                pixels = pairs.image(pair).permute(1, 2, 0).numpy()
                _add(tar, f"{number:09}.jpg", _altered(pixels, random))
                _add(tar, f"{number:09}.txt", f"{pairs[pair].captions[0]}, {number}".encode())


def run_python(*arguments: str) -> Spent:
    """Run Python with these arguments."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {status}")
    return Spent(seconds, usage.ru_maxrss * 1024)


def _altered(pixels: np.ndarray, random: np.random.Generator) -> bytes:
    """A JPEG of SIDE pixels from a crop of (H, W, 3) pixels."""
    height, width = pixels.shape[:2]
    top, left = random.integers(height - SIDE + 1), random.integers(width - SIDE + 1)
    part = np.rot90(pixels[top : top + SIDE, left : left + SIDE], int(random.integers(4)))
    field = Image.fromarray(random.integers(0, 256, (FIELD, FIELD), np.uint8))
    light = np.asarray(field.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[..., None]
    mixed = (part.astype(np.uint16) + light) // 2
    file = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_page(out: Path) -> Path:
    """preparing.md from preparing.json."""
    content = json.loads((out / "preparing.json").read_text(encoding="utf-8"))
    run = Run.model_validate(content["run"])
    rows = []
    for count, kept, prepare, opened in content["rows"]:
        rows.append(
            [
                f"{count:,}",
                f"{kept:,}",
                digits(prepare[0]),
                digits(count / prepare[0]),
                f"{prepare[1] / 2**30:.2f}",
                digits(opened[0]),
                f"{opened[1] / 2**30:.2f}",
            ]
        )
    prepares = ("prepare: seconds", "images per second", "GiB")
    header = ("images", "kept", *prepares, "open: seconds", "GiB")
    lines = [f"{machine(run)}.\n", *table(header, rows)]
    return save_page(out / "preparing.md", "Preparing", "benchmarks.preparing", lines)


if __name__ == "__main__":
    main()
