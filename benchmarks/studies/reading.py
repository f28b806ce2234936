"""How fast prepared images are read, and how long training waits for them.

    python -m benchmarks.studies.reading DATA [--size 256] [--images 2000] [--out docs/benchmarks]

DATA is anything that `wuerstchen prepare` reads. Our reader, webdataset and datasets read the same
shards in turns: JPEG to batches of (3, S, S) pixels, reshuffled every epoch, with one worker per
core. Then Stage C is trained briefly, from images and from cached encodings, to measure the
fraction of time that it waits for batches.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.records import ROOT, Run, load, this_run
from benchmarks.tables import digits, machine, median_and_range, save_page, table
from benchmarks.timing import alternate
from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.config import Config, DataConfig, load_prepare
from wuerstchen.config import load as load_config
from wuerstchen.data import BatchLoader, open_pairs
from wuerstchen.data.images import resize_and_crop
from wuerstchen.prepare.prepare import prepare
from wuerstchen.training import run as training_run
from wuerstchen.training.cache_latents import encode

BATCH = 64
WORKERS = os.cpu_count() or 1
STEPS = 60
"""Training steps of Stage C."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.reading", description=__doc__
    )
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=2000, help="images per turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(options, Path(folder))


def _measure(options: argparse.Namespace, scratch: Path) -> None:
    start = time.perf_counter()
    ready = prepare(options.data, scratch / "set", load_prepare(None, [f"size={options.size}"]))
    prepared = time.perf_counter() - start
    count = options.images // BATCH
    readers: dict[str, Callable[[], Iterator[Tensor]]] = {
        "ours": lambda: _ours(ready, options.size),
        "webdataset": lambda: _webdataset(ready, options.size),
        "datasets": lambda: _datasets(ready, options.size, scratch),
    }
    # Opened once and not timed, because training opens its data once.
    streams = {name: make() for name, make in readers.items()}
    works = {name: _reading(stream, count) for name, stream in streams.items()}
    before = load()
    seconds = alternate(works, options.repeats)
    rates = {name: [count * BATCH / each for each in found] for name, found in seconds.items()}
    content = {
        "run": this_run("none").model_dump(),
        "size": options.size,
        "load": before,
        "images": len(open_pairs(DataConfig(path=str(ready), size=options.size))[0]),
        "prepared_per_second": _kept(ready) / prepared,
        "images_per_second": rates,
        "waiting": _waiting(options.size, ready, scratch),
    }
    write_file(options.out / "reading.json", (json.dumps(content, indent=1) + "\n").encode())
    print(write_page(options.out))


def _reading(stream: Iterator[Tensor], count: int) -> Callable[[], object]:
    def work() -> None:
        for batch in islice(stream, count):
            assert batch.shape[0] == BATCH

    return work


def _ours(ready: Path, size: int) -> Iterator[Tensor]:
    pairs, _, _ = open_pairs(DataConfig(path=str(ready), size=size, cache_gib=0.0))
    return (batch.images for batch in BatchLoader(pairs, BATCH, 0))


def _webdataset(ready: Path, size: int) -> Iterator[Tensor]:
    import webdataset

    def pixels(sample: dict[str, Image.Image]) -> Tensor:
        return _square(sample["jpg"], size)

    urls = [str(path) for path in sorted((ready / "shards").iterdir())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = webdataset.WebDataset(
            urls, shardshuffle=len(urls), resampled=True, nodesplitter=None, empty_check=False
        )
    stream = data.shuffle(1000).decode("pil").map(pixels)
    loader = DataLoader(stream, BATCH, num_workers=WORKERS, drop_last=True)
    return (batch.float().div_(255) for batch in loader)


def _datasets(ready: Path, size: int, scratch: Path) -> Iterator[Tensor]:
    import datasets

    datasets.disable_progress_bars()
    urls = [str(path) for path in sorted((ready / "shards").iterdir())]
    # datasets infers metadata fields from the first five images, which fails if one of them is
    # null; so the fields are named here, and the metadata stays undecoded.
    fields = {"jpg": datasets.Image(), "txt": datasets.Value("string")}
    fields |= {name: datasets.Value("string") for name in ("__key__", "__url__")}
    found = datasets.load_dataset(
        "webdataset",
        data_files={"train": urls},
        split="train",
        features=datasets.Features(fields),
        cache_dir=str(scratch / "cache"),
    )

    def pixels(rows: dict[str, list[Image.Image]]) -> dict[str, list[Tensor]]:
        return {"pixels": [_square(image, size) for image in rows["jpg"]]}

    loader = DataLoader(
        found.with_transform(pixels), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True
    )

    def epochs() -> Iterator[Tensor]:
        while True:
            for batch in loader:
                yield batch["pixels"].float().div_(255)

    return epochs()


def _square(image: Image.Image, size: int) -> Tensor:
    """What our reader does to an upright sRGB image."""
    pixels = bytearray(resize_and_crop(image.convert("RGB"), size, size).tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(size, size, 3).permute(2, 0, 1)


def _kept(ready: Path) -> int:
    found: int = json.loads((ready / "report.json").read_text())["kept"]
    return found


def _waiting(size: int, ready: Path, scratch: Path) -> dict[str, dict[str, float]]:
    """Fraction of training time of Stage C spent waiting for a batch."""
    found = {}
    for name in ("images", "encodings"):
        model = Path(shutil.copytree(weights.resolve().source, scratch / name))
        config = _short(model, ready, size, scratch / "encoded" if name == "encodings" else None)
        if name == "encodings":
            encode(config, ["semantics"], "fp16")
        training_run.train(config, "c")
        lines = (model / "runs" / "c" / "log.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines if "waiting" in line][1:]
        found[name] = {
            key: median(float(entry[key]) for entry in entries)
            for key in ("waiting", "images_per_second")
        }
    return found


def _short(model: Path, ready: Path, size: int, encoded: Path | None) -> Config:
    """A short training run of Stage C alone, with the other stages of the bundled model."""
    return load_config(
        "lora",
        [
            f"base={model}",
            f"output={model}",
            f"data.path={ready}",
            f"data.size={size}",
            "data.cache_gib=0",
            f"data.latent_cache={encoded or ''}",
            "stage_c.training.lora=null",
            f"stage_c.training.batch_size={BATCH}",
            f"stage_c.training.images={BATCH * STEPS}",
            "stage_c.training.validate_every=1000000000",
            "stage_c.training.checkpoint_every=1000000000",
        ],
    )


def write_page(out: Path) -> Path:
    """reading.md from reading.json."""
    content = json.loads((out / "reading.json").read_text())
    run = Run.model_validate(content["run"])
    rates: dict[str, list[float]] = content["images_per_second"]
    ours = median(rates["ours"])
    rows = [
        [name, median_and_range(each), "" if name == "ours" else f"{ours / median(each):.2f}"]
        for name, each in rates.items()
    ]
    lines = [
        f"{machine(run)}; {content['images']} images in JPEG for {content['size']} pixels. "
        f"`wuerstchen prepare` made them at {digits(content['prepared_per_second'])} images per "
        "second.\n",
        *table(
            ("reader", "images per second (range of the turns)", "our rate over its rate"), rows
        ),
    ]
    if content["waiting"]:
        waits = [
            [name, f"{each['waiting']:.2%}", digits(each["images_per_second"])]
            for name, each in content["waiting"].items()
        ]
        lines += ["Training Stage C, without images in memory:\n"]
        lines += table(("from", "time spent waiting for data", "images per second"), waits)
    return save_page(out / "reading.md", "Reading images", "benchmarks.studies.reading", lines)


if __name__ == "__main__":
    main()
