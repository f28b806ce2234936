"""Score a model's pictures of stickers: what was asked for, against what the judge finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wuerstchen.data.stickers import Composed, Sprite, open_sprites
from wuerstchen.evaluation.distances.frechet import frechet_distance
from wuerstchen.evaluation.distances.mind import mind
from wuerstchen.evaluation.inputs import Progress, batches, no_progress
from wuerstchen.evaluation.stickers.features import (
    features_of,
    kept_features,
    sprite_crop,
    sprite_features,
)
from wuerstchen.evaluation.stickers.judge import Judge
from wuerstchen.evaluation.stickers.nearest import nearest
from wuerstchen.evaluation.stickers.network import SIDE, FeatureNetwork, last_layer
from wuerstchen.evaluation.stickers.prompts import SETS, Set, scenes
from wuerstchen.evaluation.stickers.reading import Verdict, read
from wuerstchen.evaluation.stickers.scores import Distances, Scores, Similar, tabulate
from wuerstchen.evaluation.stickers.segmentation import crop, segment

Draw = Callable[[Sequence[str], int], Sequence[Image.Image]]
"""(prompts, seed of the first) -> RGB images; the k-th is drawn with seed + k."""

PAIRS = 48
"""Drawn images that are shown beside the nearest training sticker."""


@dataclass(frozen=True)
class Examiner:
    """A feature network and the judge built on it."""

    network: FeatureNetwork
    judge: Judge
    training: tuple[Sprite, ...]
    """Stickers that models may have been trained on."""
    features: Tensor
    """(N, F) of these, sharp."""


def build_examiner(
    folder: Path,
    kept: Path | None = None,
    progress: Progress = no_progress,
    device: torch.device | str = "cpu",
) -> Examiner:
    """Build a judge from the stickers in `folder`; takes minutes for the whole set.

    kept    a .safetensors file: the features are read from it, or written to it if it is missing
    device  of the feature network

    Raises DataError for a folder without stickers, WuerstchenError without the extra `judge`.
    """
    network = FeatureNetwork(device)
    training = open_sprites(folder, "train").all
    sprites = (*training, *open_sprites(folder, "test-cells").all)
    features = kept_features(kept, sprites, lambda: sprite_features(network, sprites, progress))
    sharp = features[0, : len(training)].float()
    return Examiner(network, Judge(sprites, features), training, sharp)


def score(
    draw: Draw,
    folder: Path,
    examiner: Examiner,
    *,
    size: int,
    count: int = 200,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Scores:
    """Draw `count` images for each set of prompts, and judge them as real images of the same.

    size  side of the images in pixels, a multiple of 128
    """
    drawn: dict[Set, list[Verdict]] = {}
    real: dict[Set, list[Verdict]] = {}
    images: dict[Set, list[Image.Image]] = {}
    asked: dict[Set, list[Composed]] = {}
    for name in SETS:
        asked[name] = scenes(folder, name, count, size, seed, examiner.judge.knows)
        images[name] = _draw(draw, asked[name], size, seed, name, progress)
        truths = [scene.truth for scene in asked[name]]
        originals = [scene.image for scene in asked[name]]
        drawn[name] = read(examiner.network, examiner.judge, images[name], truths)
        real[name] = read(examiner.network, examiner.judge, originals, truths)
    others = scenes(folder, "training", count, size, seed + 1, examiner.judge.knows)
    distances = _distances(
        examiner.network,
        images["training"],
        [scene.image for scene in asked["training"]],
        [scene.image for scene in others],
    )
    pairs = _nearest(examiner, images, asked)
    return tabulate(drawn, real, distances, pairs)


def _draw(
    draw: Draw,
    asked: Sequence[Composed],
    size: int,
    seed: int,
    name: str,
    progress: Progress,
) -> list[Image.Image]:
    prompts = [scene.captions[0].text for scene in asked]
    images: list[Image.Image] = []
    progress(name, 0, len(prompts))
    for start, stop in batches(len(prompts), size):
        images += draw(prompts[start:stop], seed + start)
        progress(name, stop, len(prompts))
    return images


def _distances(
    network: FeatureNetwork,
    drawn: Sequence[Image.Image],
    real: Sequence[Image.Image],
    others: Sequence[Image.Image],
) -> Distances:
    """Of whole images; `others` are real images of other scenes, for the distance of chance."""
    sides = (SIDE, SIDE)
    a, b, c = (
        last_layer(features_of(network, [x.resize(sides, Image.Resampling.LANCZOS) for x in each]))
        for each in (drawn, real, others)
    )
    return Distances(
        frechet=frechet_distance(a, b),
        frechet_of_real=frechet_distance(c, b),
        mind=mind(a, b),
        mind_of_real=mind(c, b),
        n=len(a),
    )


def _nearest(
    examiner: Examiner,
    images: dict[Set, list[Image.Image]],
    asked: dict[Set, list[Composed]],
) -> Similar:
    """The nearest training sticker of every single sticker, drawn and real."""
    cells = [scene.truth.objects[0] for scene in asked["held-out"]]
    drawn = _whole_crops(images["held-out"])
    real = _whole_crops([scene.image for scene in asked["held-out"]])
    indices, likeness = nearest(features_of(examiner.network, drawn), examiner.features)
    _, real_likeness = nearest(features_of(examiner.network, real), examiner.features)
    shown: list[Image.Image] = []
    labels: list[str] = []
    for k, cell in enumerate(cells[:PAIRS]):
        sprite = examiner.training[indices[k]]
        shown += [drawn[k], sprite_crop(sprite, 0, indices[k])]
        labels += [f"{cell.name}, {cell.style}", f"nearest: {sprite.name}, {sprite.style}"]
    return Similar(
        float(torch.tensor(likeness).mean()),
        float(torch.tensor(real_likeness).mean()),
        shown,
        labels,
    )


def _whole_crops(images: Sequence[Image.Image]) -> list[Image.Image]:
    """All that stands out of each image; a blank one as it is."""
    boxes = [segment(image).whole or (0, 0, *image.size) for image in images]
    return [crop(image, box, SIDE) for image, box in zip(images, boxes, strict=True)]
