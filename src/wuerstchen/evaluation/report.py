"""What an evaluation found, as a file, a table and grids of images."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from wuerstchen import __version__
from wuerstchen.atomic_write import write_file
from wuerstchen.data import Pairs
from wuerstchen.evaluation.grid import labelled_grid, to_pil
from wuerstchen.evaluation.metrics import Figure
from wuerstchen.evaluation.nearest_neighbours import FIRST, Answer

TITLES = {
    "stage_a_psnr": ("Stage A alone, PSNR", "dB"),
    "stage_a_codes_psnr": ("Stage A through its codebook, PSNR", "dB"),
    "semantics_psnr": ("Compressor + Stage B + A, PSNR", "dB"),
    "text_nearest": ("Nearest training image is the object", "%"),
    "text_first_five": (f"One of the first {FIRST} is the object", "%"),
}
"""Of every figure, and its unit; shares are kept in [0, 1] and shown in percent."""

Setting = str | int | float | None | list[float]


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, the settings they were measured with, and images to look at."""

    settings: Mapping[str, Setting]
    figures: Mapping[str, Figure]
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
        """A table for people, one line a figure."""
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


def save_image(path: Path, image: Image.Image) -> None:
    """Write a PNG aside and rename it; SaveError where that cannot be."""
    content = io.BytesIO()
    image.save(content, "PNG")
    write_file(path, content.getvalue())


def reconstruction_grid(rows: Sequence[tuple[Tensor, Tensor, float, Tensor, float]]) -> Image.Image:
    """Rows of original, Stage A with its PSNR, and Stage B + A with its PSNR; two in a line."""
    images, labels = [], []
    for original, alone, alone_psnr, through, through_psnr in rows:
        images += [to_pil(original), to_pil(alone), to_pil(through)]
        labels += ["original", f"A: {alone_psnr:.1f} dB", f"B + A: {through_psnr:.1f} dB"]
    return labelled_grid(images, labels, columns=6)


def neighbour_grid(answers: Sequence[Answer], train: Pairs) -> Image.Image:
    """What was drawn, and right of it the nearest training image; four of these in a line."""
    images, labels = [], []
    for found in answers:
        first = found.nearest[0]
        images += [to_pil(found.image), to_pil(train.image(first) / 255)]
        verdict = "the same" if found.rank == 1 else train[first].group
        labels += [found.question.caption, f"nearest: {verdict}"]
    return labelled_grid(images, labels, columns=8)
