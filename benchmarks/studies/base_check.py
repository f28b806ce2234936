"""What fine-tuning with the config `lora` teaches a base: images like its own, and others.

    python -m benchmarks.studies.base_check FLUENT3D DREAMBOOTH [--out docs/benchmarks]

FLUENT3D are images of 3D emoji, which the bundled model knows. 300 of them, evenly spaced, are
recoloured from dark blue to white and keep their captions: a style for this base. DREAMBOOTH are
photos of things, with `subject` in their JSON files: unlike anything that this base was trained on.
For each, the bundled model is measured as by `wuerstchen evaluate` and `diagnose`, fine-tuned
by `wuerstchen train lora base=stickers` with default settings, and measured again.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from PIL import Image, ImageOps

from benchmarks.records import ROOT, Run, this_run
from benchmarks.tables import digits, machine, save_page, table
from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.config import DataConfig, load
from wuerstchen.data import open_pairs
from wuerstchen.evaluation import evaluate
from wuerstchen.evaluation.diagnose import diagnose
from wuerstchen.evaluation.metrics import Estimate
from wuerstchen.training import run as training_run

BLUE, IMAGES, PROMPTS, SIDE = "#0a1478", 300, 100, 256
HELD_OUT = 0.15
"""Test fraction of the blue images; the photos have a split of their own."""


class Measured(NamedTuple):
    """Figures of a model on one data set."""

    stage_a: Estimate
    semantics: Estimate
    nearest: Estimate
    chance: float
    """Fréchet distance of generated from true semantics, as a multiple of that by chance."""


class Row(NamedTuple):
    """One data set, before and after training."""

    name: str
    images: int
    """Training images."""
    before: Measured
    after: Measured
    seconds: float
    """Duration of training."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.base_check", description=__doc__
    )
    parser.add_argument("fluent3d", type=Path)
    parser.add_argument("dreambooth", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blue = write_blue(options.fluent3d, folder / "blue", IMAGES)
        photos = DataConfig(path=str(options.dreambooth), size=SIDE, balance_by="subject")
        rows = [
            measure_row("emoji in blue", blue, folder / "blue-model"),
            measure_row("photos of things", photos, folder / "photos-model"),
        ]
    content = {"run": this_run("bundled").model_dump(), "rows": [_plain(row) for row in rows]}
    write_file(options.out / "base_check.json", json.dumps(content, indent=1).encode())
    print(write_page(options.out))


def write_blue(fluent3d: Path, folder: Path, count: int) -> DataConfig:
    """Write `count` blue images with captions into `folder`; returns their data config."""
    folder.mkdir()
    pairs, _, _ = open_pairs(DataConfig(path=str(fluent3d), size=SIDE, balance_by="name"))
    for number in range(count):
        index = number * len(pairs) // count
        image = Image.fromarray(pairs.image(index).permute(1, 2, 0).numpy())
        blue = ImageOps.colorize(ImageOps.grayscale(image), black=BLUE, white="white")
        blue.save(folder / f"{number:03}.png")
        side = {"captions": pairs[index].captions, "name": pairs[index].group}
        (folder / f"{number:03}.json").write_text(json.dumps(side), encoding="utf-8")
    return DataConfig(path=str(folder), size=SIDE, balance_by="name", test_fraction=HELD_OUT)


def measure_row(name: str, data: DataConfig, output: Path) -> Row:
    """Measure the base, fine-tune it and measure the result."""
    base = weights.find("stickers")
    before = measure(base, data)
    overrides = [
        f"data.{key}={value}" for key, value in data.model_dump(exclude_defaults=True).items()
    ]
    start = perf_counter()
    tuned = training_run.train(load("lora", ["base=stickers", f"output={output}", *overrides]))
    seconds = perf_counter() - start
    row = Row(name, len(open_pairs(data)[0]), before, measure(tuned, data), seconds)
    print(row, flush=True)
    return row


def measure(model: Path, data: DataConfig) -> Measured:
    """The figures of `wuerstchen evaluate` and `wuerstchen diagnose`."""
    figures = evaluate(model, data, prompts=PROMPTS).figures
    names = ("stage_a_psnr", "semantics_psnr", "text_nearest")
    stage_a, semantics, nearest = (figures[name] for name in names)
    gap = diagnose(model, data, images=PROMPTS).semantics
    return Measured(stage_a, semantics, nearest, gap.over_chance)


def write_page(out: Path) -> Path:
    """base_check.md from base_check.json."""
    content = json.loads((out / "base_check.json").read_text(encoding="utf-8"))
    run = Run.model_validate(content["run"])
    rows = []
    for row in content["rows"]:
        before, after = row["before"], row["after"]
        rows.append(
            [
                row["name"],
                f"{row['images']}",
                f"{before['stage_a']['value']:.1f}",
                f"{before['semantics']['value']:.1f} of {before['semantics']['n']}",
                *(_percent(each["nearest"]) for each in (before, after)),
                *(digits(each["chance"]) for each in (before, after)),
                digits(row["seconds"]),
            ]
        )
    header = (
        "set",
        "images learned",
        "A alone, dB",
        "B + A, dB, of held-out images",
        "nearest is the object: base",
        "fine-tuned",
        "semantics, times chance: base",
        "fine-tuned",
        "seconds of training",
    )
    lines = [f"{machine(run)}.\n", *table(header, rows)]
    command = "benchmarks.studies.base_check"
    return save_page(out / "base_check.md", "What fine-tuning teaches a base", command, lines)


def _plain(row: Row) -> dict[str, object]:
    sides = {
        side: {name: _fields(value) for name, value in measured._asdict().items()}
        for side, measured in (("before", row.before), ("after", row.after))
    }
    return {**row._asdict(), **sides}


def _fields(value: Estimate | float) -> object:
    return asdict(value) if isinstance(value, Estimate) else value


def _percent(figure: dict[str, float]) -> str:
    value, low, high = (f"{figure[key]:.0%}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high}) of {figure['n']}"


if __name__ == "__main__":
    main()
