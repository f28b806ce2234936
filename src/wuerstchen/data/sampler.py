"""Which image stands at which position of a run: seeded shuffles, one lane for each shape.

A lane is the endless row of epochs of the images of one shape, cut into batches. By the end of
epoch e a lane of G groups has given floor(e G / batch) batches; those that fall into an epoch come
in a shuffled order of the lanes. So every batch has one shape, every group comes once per epoch of
its lane, and nothing has to be remembered to go on in the middle.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import final

import numpy as np

from wuerstchen.data.pairs import Pairs
from wuerstchen.geometry import Shape

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draw:
    """What one position of the stream shows."""

    index: int
    key: str
    caption: str


@final
class Order:
    """The endless row of draws; `at` may be asked in any order.

    batch  images of a step, which have one shape
    """

    def __init__(self, pairs: Pairs, batch: int, seed: int) -> None:
        self._pairs, self._batch = pairs, batch
        self._seed = seed % 2**64  # numpy takes no negative seeds
        present = np.unique(pairs.buckets).tolist()
        # One lane draws as it always did, so that runs of before can be gone on with.
        self._lanes: list[_Lane] = [
            _Lane(pairs, np.flatnonzero(pairs.buckets == k), [self._seed], [k])
            if len(present) > 1
            else _Lane(pairs, np.arange(len(pairs)), [self._seed], [])
            for k in present
        ]
        self._counts = np.array([lane.groups for lane in self._lanes])
        if len(self._lanes) > 1:
            _say_what_repeats([pairs.shapes[k] for k in present], self._counts.tolist(), batch)
        self._epoch = lru_cache(maxsize=4)(self._draw_epoch)

    def start(self, seen: int) -> int:
        """The position to go on at after `seen` images: with several shapes, where a batch
        begins, also where an earlier run had batches of another size."""
        return seen if len(self._lanes) == 1 else seen // self._batch * self._batch

    def at(self, position: int) -> Draw:
        if len(self._lanes) == 1:
            return self._lanes[0].at(position)
        number, slot = divmod(position, self._batch)
        epoch = self._epoch_of(number)
        lanes, places = self._epoch(epoch)
        here = number - self._before(epoch)
        return self._lanes[int(lanes[here])].at(int(places[here]) * self._batch + slot)

    def _before(self, epoch: int) -> int:
        """Batches of all lanes before an epoch."""
        return int((epoch * self._counts // self._batch).sum())

    def _epoch_of(self, number: int) -> int:
        """The epoch that holds the batch of this number."""
        epoch = number * self._batch // int(self._counts.sum())
        while self._before(epoch + 1) <= number:
            epoch += 1
        while self._before(epoch) > number:
            epoch -= 1
        return epoch

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Lane and place in it of every batch of an epoch."""
        first = epoch * self._counts // self._batch
        last = (epoch + 1) * self._counts // self._batch
        lanes = np.repeat(np.arange(len(self._lanes)), last - first)
        lanes = np.random.default_rng([self._seed, epoch]).permutation(lanes)
        places = np.zeros_like(lanes)
        for lane, (start, end) in enumerate(zip(first, last, strict=True)):
            places[lanes == lane] = np.arange(start, end)  # each lane keeps its own order
        return lanes, places


def _say_what_repeats(shapes: Sequence[Shape], counts: Sequence[int], batch: int) -> None:
    """Name the shapes with fewer images than a batch, whose batches show some of them twice."""
    few = [
        f"{count} of {shape.height} x {shape.width}"
        for shape, count in zip(shapes, counts, strict=True)
        if count < batch
    ]
    if few:
        _warn_once(
            f"Images repeat within a batch of {batch}, as every batch has one shape and some "
            f"shapes have fewer: {', '.join(few)}. Prepare with a smaller filters.max_aspect, or "
            "set data.buckets=false, where that is not wanted."
        )


@cache
def _warn_once(words: str) -> None:
    """For a training makes several orders of the same images."""
    log.warning("%s", words)


@final
class _Lane:
    """The endless row of draws of the images of one shape."""

    def __init__(self, pairs: Pairs, indices: np.ndarray, seed: list[int], lane: list[int]) -> None:
        codes = pairs.groups[indices]
        order = np.argsort(codes, kind="stable")
        _, first, self._sizes = np.unique(codes[order], return_index=True, return_counts=True)
        self._pairs, self._members, self._first = pairs, indices[order], first
        self._seed, self._lane = seed, lane
        self.groups = len(first)
        # A batch touches an epoch or two, but a small set may have several epochs in a batch.
        self._epoch = lru_cache(maxsize=4)(self._draw_epoch)

    def at(self, position: int) -> Draw:
        epoch, slot = divmod(position, self.groups)
        order, members, captions = self._epoch(epoch)
        group = order[slot]
        index = int(self._members[self._first[group] + int(members[slot] * self._sizes[group])])
        pair = self._pairs[index]
        return Draw(index, pair.key, pair.captions[int(captions[slot] * len(pair.captions))])

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order of the groups, and for every slot two numbers in [0, 1): member and caption."""
        rng = np.random.default_rng([*self._seed, epoch, *self._lane])
        return rng.permutation(self.groups), rng.random(self.groups), rng.random(self.groups)
