"""Endless seeded batches that can be resumed anywhere and divided among processes.

The stream of images is one sequence of positions 0, 1, 2 …; the sample at a position depends on
the seed, the batch size and the position alone (`wuerstchen.data.sampler`). So a run resumes
exactly at `seen`, and several processes that each load their part of every batch see together
what one process would see.
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

from wuerstchen.data.open import empty_split_advice
from wuerstchen.data.pairs import Pairs
from wuerstchen.data.sampler import Sample, Sampler
from wuerstchen.errors import TrainingError

_PREFETCH = 2
"""Batches that are decoded in advance."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with one caption each."""

    images: Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    captions: list[str]
    keys: list[str]
    indices: list[int]
    """Into the `Pairs` that the batch comes from."""

    def __len__(self) -> int:
        return len(self.keys)

    def split(self, count: int) -> list[tuple[int, "Batch"]]:
        """At most `count` micro-batches of equal size (the last may be smaller), each with the
        index of its first image."""
        size = max(1, math.ceil(len(self) / count))
        cuts = [slice(start, start + size) for start in range(0, len(self), size)]
        return [
            (c.start, Batch(self.images[c], self.captions[c], self.keys[c], self.indices[c]))
            for c in cuts
        ]


@final
class BatchLoader:
    """An endless stream of batches of `pairs`; every iteration starts at `seen`.

    An epoch shows every group once, by a random member with a random caption. The images of a
    batch have one shape. A batch may extend from one epoch into the next.

    batch_size  images per step, over all processes
    rank        which of the `world` equal parts of every batch this process loads
    seen        images that the run has already had, over all processes
    images      False: batches without pixels, for trainings on cached latents

    Raises TrainingError if there are no pairs or `world` does not divide the batch size.
    """

    def __init__(
        self,
        pairs: Pairs,
        batch_size: int,
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
                f"{empty_split_advice(pairs.config)}."
            )
        if batch_size % world:
            raise TrainingError(
                f"Expected a batch size that {world} processes can share equally, found "
                f"{batch_size}; set it to a multiple of {world}."
            )
        self._batch_size = batch_size
        self._sampler = Sampler(pairs, batch_size, seed)
        self._per_process = batch_size // world
        self._image = pairs.image if images else lambda index: torch.empty(0)
        self._first = self._sampler.resume_position(seen) + rank * self._per_process

    def __iter__(self) -> Iterator[Batch]:
        workers = os.cpu_count() or 1
        pool = ThreadPoolExecutor(workers)
        position = self._first
        queue: deque[tuple[list[Sample], list[Future[Tensor]]]] = deque()
        try:
            while True:
                while len(queue) <= _PREFETCH:
                    samples = [self._sampler[position + i] for i in range(self._per_process)]
                    # One task per image would cost more than decoding a small one.
                    chunks = [samples[i::workers] for i in range(min(workers, len(samples)))]
                    queue.append((samples, [pool.submit(self._decode, each) for each in chunks]))
                    position += self._batch_size
                yield self._collate(*queue.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, samples: Sequence[Sample]) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""
        return torch.stack([self._image(sample.index) for sample in samples]).float().div_(255)

    def _collate(self, samples: Sequence[Sample], images: Sequence[Future[Tensor]]) -> Batch:
        chunks = [each.result() for each in images]
        joined = chunks[0].new_empty(len(samples), *chunks[0].shape[1:])  # (B, 3, H, W)
        for start, chunk in enumerate(chunks):
            joined[start :: len(chunks)] = chunk
        captions, keys = [s.caption for s in samples], [s.key for s in samples]
        return Batch(joined, captions, keys, [s.index for s in samples])
