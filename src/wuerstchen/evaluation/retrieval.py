"""Retrieval accuracy: is the training image nearest to a generated one of the right object?

An image generated for a training caption should be nearest to a training image of the same object
(L2 between RGB thumbnails), where the objects are the groups of `data.balance_by`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wuerstchen.data import Pairs
from wuerstchen.evaluation.metrics import nearest, thumbnails

TOP_K = 5
"""Neighbours that count for top-k accuracy."""

GenerateImages = Callable[[Sequence[str], int], Tensor]
"""(captions, seed of the first) to a (B, 3, H, W) image in [0, 1] for each."""


@dataclass(frozen=True, slots=True)
class Query:
    """A training caption to generate an image for."""

    caption: str
    group: str
    index: int
    """Of the caption's training image."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The image generated for a query, and its nearest training images."""

    query: Query
    image: Tensor
    """(3, H, W) in [0, 1]."""
    neighbours: tuple[int, ...]
    """Indices of the nearest training images, nearest first."""
    rank: int
    """Rank of the nearest training image of the right group; 1 is the best."""


def choose_queries(train: Pairs, count: int, seed: int) -> list[Query]:
    """The first caption of `count` random groups, or of all groups where there are fewer.

    The member of a group with the smallest key provides the caption. Groups are equally likely.
    """
    queries: dict[str, Query] = {}
    for index in sorted(range(len(train)), key=lambda index: train[index].key):
        pair = train[index]
        queries.setdefault(pair.group, Query(pair.captions[0], pair.group, index))
    groups = sorted(queries)
    chosen = random.Random(seed).sample(groups, min(count, len(groups)))
    return [queries[group] for group in chosen]


def image_thumbnails(pairs: Pairs, indices: Sequence[int] | None = None) -> Tensor:
    """(N, 3, 32, 32) thumbnails in [0, 1] of the images at `indices`, or of all."""
    chosen = range(len(pairs)) if indices is None else indices
    return torch.cat([thumbnails(pairs.image(i)[None] / 255) for i in chosen])


def retrieve(
    queries: Sequence[Query], train: Pairs, references: Tensor, generate: GenerateImages, seed: int
) -> list[Retrieved]:
    """Generate an image for each query, the k-th from seed + k, and find its neighbours.

    references  (N, 3, 32, 32) thumbnails of `train`, in its order
    """
    images = generate([query.caption for query in queries], seed)
    results = []
    for query, image, order in zip(
        queries, images, nearest(images, references).tolist(), strict=True
    ):
        rank = next(k for k, i in enumerate(order, 1) if train[i].group == query.group)
        results.append(Retrieved(query, image, tuple(order[:TOP_K]), rank))
    return results
