"""Open the model and the data of an evaluation, pick images and split them into batches."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.inference.pipeline import Pipeline

Progress = Callable[[str, int, int], None]
"""(task, images done, total images), called at the start and after each batch."""

Draw = Callable[[Sequence[str], int], Sequence[Image.Image]]
"""(prompts, seed of the first) to an RGB image for each; the k-th is drawn with seed + k."""

BATCH, BATCH_SIDE = 20, 256
"""Images per batch up to this side; larger images get smaller batches, for equal memory."""


def no_progress(task: str, done: int, total: int) -> None:
    """Ignore progress."""


def open_pipeline(folder: Path) -> Pipeline:
    """The model in `folder`, on the accelerator if there is one."""
    return Pipeline.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")


def drawing(pipeline: Pipeline) -> Draw:
    """Draws with the defaults of a model."""

    def draw(prompts: Sequence[str], first: int) -> list[Image.Image]:
        images = pipeline(list(prompts), seed=first, output_type="pil").images
        return [image for image in images if isinstance(image, Image.Image)]

    return draw


def open_squares(data: DataConfig, pipeline: Pipeline) -> tuple[Pairs, Pairs]:
    """Training and held-out images as squares of the model's image size."""
    squares = {"size": pipeline.info.size, "buckets": False}
    train, test, _ = open_pairs(data.model_copy(update=squares))
    return train, test


def batches(count: int, side: int) -> Iterator[tuple[int, int]]:
    """Start and stop indices that split `count` images of side x side pixels into batches."""
    size = max(1, min(BATCH, BATCH * BATCH_SIDE**2 // side**2))
    for start in range(0, count, size):
        yield start, min(start + size, count)


def evenly_spaced(total: int, count: int) -> list[int]:
    """Up to `count` of `total` indices, evenly spaced."""
    count = min(count, total)
    return [i * total // count for i in range(count)]
