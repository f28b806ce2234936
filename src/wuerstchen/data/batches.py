"""Endless seeded batches that can be taken up anywhere and shared among processes.

The stream of pictures is one row of positions 0, 1, 2 …; what stands at a position follows from
the seed and the position alone. So a run continues exactly at `seen`, and two processes that each
take their share of every batch see together what one process would see.
"""

import math
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from wuerstchen.data.pairs import Pairs
from wuerstchen.errors import TrainingError

_AHEAD = 2
"""Batches that are decoded while the current one is worked on."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with one caption each."""

    images: Tensor
    """(B, 3, S, S) float32 in [0, 1]."""
    captions: list[str]
    keys: list[str]
    indices: list[int]
    """Into the `Pairs` that the batch is drawn from."""

    def __len__(self) -> int:
        return len(self.keys)

    def split(self, parts: int) -> list[tuple[int, "Batch"]]:
        """`parts` batches of equal length, each with the place where it starts."""
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


@dataclass(frozen=True, slots=True)
class _Draw:
    """What one position of the stream shows."""

    index: int
    caption: str


@final
class Batches:
    """An endless stream of batches of `pairs`; iterating begins at `seen`.

    An epoch shows every group once, by a random member with a random caption. A batch may reach
    from one epoch into the next.

    batch  pictures per step over all processes together
    rank   which of the `world` equal shares of every batch this process gets
    seen   pictures (of all processes) that the run has already had

    Raises TrainingError where there is nothing to draw from or a batch cannot be shared equally.
    """

    def __init__(
        self, pairs: Pairs, batch: int, seed: int, *, rank: int = 0, world: int = 1, seen: int = 0
    ) -> None:
        if not len(pairs):
            raise TrainingError(
                f"Expected pictures in the {pairs.split} split, found none; add data, or change "
                "data.test_share."
            )
        if batch % world:
            raise TrainingError(
                f"Expected a batch that {world} processes can share equally, found {batch}; set "
                f"it to a multiple of {world}."
            )
        self._pairs = pairs
        self._batch = batch
        self._stream = _Stream(pairs, seed)
        self._share = batch // world
        self._first = seen + rank * self._share

    def __iter__(self) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(os.cpu_count())
        position = self._first
        ahead: deque[tuple[list[_Draw], list[Future[Tensor]]]] = deque()
        try:
            while True:
                while len(ahead) <= _AHEAD:
                    draws = [self._stream.at(position + i) for i in range(self._share)]
                    ahead.append((draws, [pool.submit(self._pairs.image, d.index) for d in draws]))
                    position += self._batch
                yield self._collect(*ahead.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _collect(self, draws: Sequence[_Draw], images: Sequence[Future[Tensor]]) -> Batch:
        return Batch(
            torch.stack([image.result() for image in images]).float().div_(255),  # (B, 3, S, S)
            [draw.caption for draw in draws],
            [self._pairs[draw.index].key for draw in draws],
            [draw.index for draw in draws],
        )


@final
class _Stream:
    """The endless row of draws; `at` may be asked in any order."""

    def __init__(self, pairs: Pairs, seed: int) -> None:
        members: defaultdict[str, list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            members[pair.group].append(index)
        self._pairs = pairs
        self._groups = list(members.values())
        self._seed = seed % 2**64  # numpy takes no negative seeds
        # A batch touches an epoch or two, but a small set may have several epochs in a batch.
        self._epoch = lru_cache(maxsize=4)(self._draw_epoch)

    def at(self, position: int) -> _Draw:
        epoch, slot = divmod(position, len(self._groups))
        order, members, captions = self._epoch(epoch)
        group = self._groups[order[slot]]
        index = group[int(members[slot] * len(group))]
        choices = self._pairs[index].captions
        return _Draw(index, choices[int(captions[slot] * len(choices))])

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order of the groups, and for every slot two numbers in [0, 1): member and caption."""
        rng = np.random.default_rng([self._seed, epoch])
        count = len(self._groups)
        return rng.permutation(count), rng.random(count), rng.random(count)
