"""The results of an evaluation as a JSON file, a table and image grids."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from wuerstchen import __version__
from wuerstchen.atomic_write import write_file
from wuerstchen.data import Pairs
from wuerstchen.evaluation.grid import labelled_grid, save_image, to_pil
from wuerstchen.evaluation.metrics import Estimate
from wuerstchen.evaluation.retrieval import TOP_K, Retrieved

TITLES = {
    "stage_a_psnr": ("Stage A alone, PSNR", "dB"),
    "stage_a_codes_psnr": ("Stage A through its codebook, PSNR", "dB"),
    "semantics_psnr": ("Compressor + Stage B + A, PSNR", "dB"),
    "text_nearest": ("Nearest training image shows the object", "%"),
    "text_first_five": (f"One of the nearest {TOP_K} shows the object", "%"),
}
"""Title and unit of each figure; fractions are stored in [0, 1] and shown in percent."""

FILES = ("evaluation.json", "reconstructions.png", "neighbours.png")
"""What `Evaluation.save` writes; the grids only where they were asked for."""

Setting = str | int | float | None | list[float]


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, the settings they were measured with, and image grids."""

    settings: Mapping[str, Setting]
    figures: Mapping[str, Estimate]
    grids: Mapping[str, Image.Image] = field(default_factory=dict)

    def to_json(self) -> str:
        """Settings and figures; intervals are 95 %, n counts images."""
        content = {
            "version": __version__,
            "settings": dict(self.settings),
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def lines(self) -> Iterator[str]:
        """A table for people, one line per figure."""
        for name, figure in self.figures.items():
            title, unit = TITLES[name]
            scale = 100 if unit == "%" else 1
            value, low, high = (scale * x for x in (figure.value, figure.low, figure.high))
            interval = f"[{low:.2f}, {high:.2f}]" if figure.n > 1 else "-"
            yield f"{title:40} {value:6.2f} {unit:2}  {interval}  n = {figure.n}"

    def save(self, folder: Path) -> list[Path]:
        """Write evaluation.json and the grids into `folder`; returns their paths.

        Raises SaveError where the folder cannot be written.
        """
        paths = [folder / "evaluation.json"]
        write_file(paths[0], self.to_json().encode())
        for name, image in self.grids.items():
            paths.append(folder / f"{name}.png")
            save_image(paths[-1], image)
        return paths


def reconstruction_grid(rows: Sequence[tuple[Tensor, Tensor, float, Tensor, float]]) -> Image.Image:
    """Original, Stage A with its PSNR, and Stage B + A with its PSNR; two of these per row."""
    images, labels = [], []
    for original, by_a, psnr_a, by_b, psnr_b in rows:
        images += [to_pil(original), to_pil(by_a), to_pil(by_b)]
        labels += ["original", f"A: {psnr_a:.1f} dB", f"B + A: {psnr_b:.1f} dB"]
    return labelled_grid(images, labels, columns=6)


def neighbour_grid(results: Sequence[Retrieved], train: Pairs) -> Image.Image:
    """Generated images, each next to the nearest training image; four of these per row."""
    images, labels = [], []
    for result in results:
        first = result.neighbours[0]
        images += [to_pil(result.image), to_pil(train.image(first) / 255)]
        group = "the same" if result.rank == 1 else train[first].group
        labels += [result.query.caption, f"nearest: {group}"]
    return labelled_grid(images, labels, columns=8)
