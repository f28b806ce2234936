"""Endless seeded batches that can be taken up anywhere and shared among processes.

The stream of images is one sequence of positions 0, 1, 2 …; the sample at a position
follows from the seed, the batch size and the position alone (`wuerstchen.data.sampler`). So a run resumes exactly
at `seen`, and two processes that each take their part of every batch together see what one process
would see.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from wuerstchen.data.open import how_to_split
from wuerstchen.data.pairs import Pairs
from wuerstchen.data.sampler import Draw, Order
from wuerstchen.errors import TrainingError

_AHEAD = 2
"""Batches that are decoded while the current one is worked on."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with one caption each."""

    images: Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    captions: list[str]
    keys: list[str]
    indices: list[int]
    """Into the `Pairs` that the batch is drawn from."""

    def __len__(self) -> int:
        return len(self.keys)

    def split(self, parts: int) -> list[tuple[int, "Batch"]]:
        """`parts` batches, equally long where that can be, each with the place where it starts."""
        size = max(1, math.ceil(len(self) / parts))
        return [
            (
                start,
                Batch(
                    self.images[start : start + size],
                    self.captions[start : start + size],
                    self.keys[start : start + size],
                    self.indices[start : start + size],
                ),
            )
            for start in range(0, len(self), size)
        ]


@final
class Batches:
    """An endless stream of batches of `pairs`; iterating begins at `seen`.

    An epoch shows every group once, by a random member with a random caption. Images of a batch
    have one shape. A batch may reach from one epoch into the next.

    batch  images per step over all processes together
    rank   which of the `world` equal shares of every batch this process gets
    seen   images (of all processes) that the run has already had
    images  False: batches without pixels, for who has them encoded

    Raises TrainingError where there is nothing to draw from or a batch cannot be shared equally.
    """

    def __init__(
        self,
        pairs: Pairs,
        batch: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        seen: int = 0,
        images: bool = True,
    ) -> None:
        if not len(pairs):
            raise TrainingError(
                f"Expected images in the {pairs.split} split, found none; "
                f"{how_to_split(pairs.config)}."
            )
        if batch % world:
            raise TrainingError(
                f"Expected a batch that {world} processes can share equally, found {batch}; set "
                f"it to a multiple of {world}."
            )
        self._pairs = pairs
        self._batch = batch
        self._order = Order(pairs, batch, seed)
        self._share = batch // world
        self._image = pairs.image if images else _no_image
        self._first = self._order.start(seen) + rank * self._share

    def __iter__(self) -> Iterator[Batch]:
        workers = os.cpu_count() or 1
        pool = ThreadPoolExecutor(workers)
        position = self._first
        ahead: deque[tuple[list[Draw], list[Future[Tensor]]]] = deque()
        try:
            while True:
                while len(ahead) <= _AHEAD:
                    draws = [self._order.at(position + i) for i in range(self._share)]
                    # A task for each image would cost more than a small one takes to decode.
                    parts = [draws[start::workers] for start in range(min(workers, len(draws)))]
                    ahead.append((draws, [pool.submit(self._decode, part) for part in parts]))
                    position += self._batch
                yield self._collect(*ahead.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, draws: Sequence[Draw]) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""
        return torch.stack([self._image(draw.index) for draw in draws]).float().div_(255)

    def _collect(self, draws: Sequence[Draw], images: Sequence[Future[Tensor]]) -> Batch:
        parts = [image.result() for image in images]
        joined = parts[0].new_empty(len(draws), *parts[0].shape[1:])  # (B, 3, H, W)
        for start, part in enumerate(parts):
            joined[start :: len(parts)] = part
        return Batch(
            joined,
            [draw.caption for draw in draws],
            [draw.key for draw in draws],
            [draw.index for draw in draws],
        )


def _no_image(index: int) -> Tensor:
    del index
    return torch.empty(0)
