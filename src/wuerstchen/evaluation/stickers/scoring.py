"""Score a model's images of stickers: what was asked for, against what the judge finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from wuerstchen.data.stickers import Composed, Sprite, open_sprites
from wuerstchen.evaluation.distances.frechet import frechet_distance
from wuerstchen.evaluation.distances.mind import mind
from wuerstchen.evaluation.inputs import Draw, Progress, batches, no_progress
from wuerstchen.evaluation.metrics import fraction_estimate
from wuerstchen.evaluation.stickers.crop_features import SIDE, FeatureNetwork, split
from wuerstchen.evaluation.stickers.features import (
    features_of,
    in_batches,
    kept_features,
    sprite_crop,
    sprite_features,
)
from wuerstchen.evaluation.stickers.judge import Judge
from wuerstchen.evaluation.stickers.nearest import nearest
from wuerstchen.evaluation.stickers.prompts import SETS, Set, scenes
from wuerstchen.evaluation.stickers.reading import Verdict, read
from wuerstchen.evaluation.stickers.scores import Distances, Neighbour, Scores, Similar, tabulate
from wuerstchen.evaluation.stickers.segmentation import crop, segment

PAIRS = 48
"""Drawn images of each set that are shown beside the nearest training sticker."""

TYPICAL = 0.95
"""Real stickers that are less similar to their nearest than an image that counts as a copy."""


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
    batch_size: int | None = None,
    progress: Progress = no_progress,
) -> Scores:
    """Draw `count` images for each set of prompts, and judge them as real images of the same.

    size        side of the images in pixels, a multiple of 128
    batch_size  images that are drawn together; None: 20 of 256 pixels, fewer if larger
    """
    drawn: dict[Set, list[Verdict]] = {}
    real: dict[Set, list[Verdict]] = {}
    images: dict[Set, list[Image.Image]] = {}
    asked: dict[Set, list[Composed]] = {}
    for name in SETS:
        asked[name] = scenes(folder, name, count, size, seed, examiner.judge.knows)
        prompts = [scene.captions[0].text for scene in asked[name]]
        parts = _batches(count, size, batch_size)
        images[name] = _draw(draw, prompts, parts, seed, name, progress)
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


def _batches(count: int, size: int, batch_size: int | None) -> Sequence[tuple[int, int]]:
    if batch_size is None:
        return list(batches(count, size))
    return [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def _draw(
    draw: Draw,
    prompts: Sequence[str],
    parts: Sequence[tuple[int, int]],
    seed: int,
    name: str,
    progress: Progress,
) -> list[Image.Image]:
    images: list[Image.Image] = []
    progress(name, 0, len(prompts))
    for start, stop in parts:
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
        in_batches(network.last_layer, [x.resize(sides, Image.Resampling.LANCZOS) for x in each])
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
    """The nearest training sticker of every single sticker, drawn and, of held-out cells, real."""
    neighbours: dict[Set, list[Neighbour]] = {}
    shown: list[Image.Image] = []
    labels: list[str] = []
    cells: tuple[Set, Set] = ("held-out", "training")
    for name in cells:
        drawn = _whole_crops(images[name])
        indices, similarities = _nearest_stickers(examiner, drawn)
        neighbours[name] = []
        for k, scene in enumerate(asked[name]):
            sprite = examiner.training[indices[k]]
            prompt = scene.captions[0].text
            neighbours[name].append(Neighbour(prompt, sprite.key, round(similarities[k], 3)))
            if k < PAIRS:
                wanted = scene.truth.objects[0]
                shown += [drawn[k], sprite_crop(sprite, 0, indices[k])]
                labels += [
                    f"{wanted.name}, {wanted.style}",
                    f"nearest: {sprite.name}, {sprite.style}",
                ]
    _, of_real = _nearest_stickers(
        examiner, _whole_crops([scene.image for scene in asked["held-out"]])
    )
    of_drawn = [each.similarity for each in neighbours["held-out"]]
    usual = float(torch.tensor(of_real).quantile(TYPICAL))
    copies = fraction_estimate(sum(each > usual for each in of_drawn), len(of_drawn))
    return Similar(fmean(of_drawn), fmean(of_real), copies, neighbours, shown, labels)


def _nearest_stickers(
    examiner: Examiner, crops: Sequence[Image.Image]
) -> tuple[list[int], list[float]]:
    """Indices of the nearest training stickers by the network's features, and similarities."""
    features = split(features_of(examiner.network, crops)).network
    return nearest(features, split(examiner.features).network)


def _whole_crops(images: Sequence[Image.Image]) -> list[Image.Image]:
    """All that stands out of each image; a blank one as it is."""
    boxes = [segment(image).whole or (0, 0, *image.size) for image in images]
    return [crop(image, box, SIDE) for image, box in zip(images, boxes, strict=True)]
