"""Which image has which position in a training run: seeded shuffles, separate for each bucket.

A bucket holds the images of one shape. Its epochs form an endless stream that is cut into batches:
by the end of epoch e a bucket of G groups has given floor(e G / batch size) batches. The batches
of an epoch are shuffled across buckets. So every batch has one shape, every group comes once per
epoch of its bucket, and a run can resume at any position without stored state.
"""

import logging
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import final

import numpy as np

from wuerstchen.data.pairs import Pairs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """The image and caption at one position of the stream."""

    index: int
    key: str
    caption: str


@final
class Sampler:
    """The endless stream of samples, with random access.

    batch_size  images of a step, over all processes; they have one shape
    """

    def __init__(self, pairs: Pairs, batch_size: int, seed: int) -> None:
        self._batch_size = batch_size
        self._seed = seed % 2**64  # numpy takes no negative seeds
        present = np.unique(pairs.buckets).tolist()
        # A single bucket adds nothing to the seed, so that runs from before buckets can be resumed.
        self._buckets = [
            _Bucket(pairs, k, self._seed, [k] if len(present) > 1 else []) for k in present
        ]
        self._counts = np.array([bucket.groups for bucket in self._buckets])
        if len(self._buckets) > 1:
            few = ", ".join(
                f"{count} of {pairs.shapes[k].height} x {pairs.shapes[k].width}"
                for k, count in zip(present, self._counts, strict=True)
                if count < batch_size
            )
            if few:
                _warn_of_repeats(few, batch_size)
        self._epoch = lru_cache(maxsize=4)(self._shuffle_epoch)

    def resume_position(self, seen: int) -> int:
        """Position after `seen` images; with several buckets the start of a batch, even if the
        batch size has changed since."""
        return seen if len(self._buckets) == 1 else seen // self._batch_size * self._batch_size

    def __getitem__(self, position: int) -> Sample:
        if len(self._buckets) == 1:
            return self._buckets[0][position]
        number, slot = divmod(position, self._batch_size)
        epoch = self._epoch_of(number)
        buckets, batches = self._epoch(epoch)
        place = number - self._batches_before(epoch)
        bucket = self._buckets[int(buckets[place])]
        return bucket[int(batches[place]) * self._batch_size + slot]

    def _batches_before(self, epoch: int) -> int:
        """Batches of all buckets before an epoch."""
        return int((epoch * self._counts // self._batch_size).sum())

    def _epoch_of(self, number: int) -> int:
        """The epoch that contains the batch of this number."""
        epoch = number * self._batch_size // int(self._counts.sum())
        while self._batches_before(epoch + 1) <= number:
            epoch += 1
        while self._batches_before(epoch) > number:
            epoch -= 1
        return epoch

    def _shuffle_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """For every batch of an epoch: its bucket, and its number in that bucket."""
        first = epoch * self._counts // self._batch_size
        last = (epoch + 1) * self._counts // self._batch_size
        buckets = np.repeat(np.arange(len(self._buckets)), last - first)
        buckets = np.random.default_rng([self._seed, epoch]).permutation(buckets)
        batches = np.zeros_like(buckets)
        for bucket, (start, end) in enumerate(zip(first, last, strict=True)):
            batches[buckets == bucket] = np.arange(start, end)  # in order within each bucket
        return buckets, batches


@cache  # one training makes several samplers of the same images
def _warn_of_repeats(few: str, batch_size: int) -> None:
    """Warn once of the shapes with fewer images than a batch, whose batches repeat some."""
    log.warning(
        "Images repeat within a batch of %d: every batch has one shape, and some shapes have fewer "
        "images: %s. To avoid this, prepare with a smaller filters.max_aspect, or set "
        "data.buckets=false.",
        batch_size,
        few,
    )


@final
class _Bucket:
    """The endless stream of samples of one shape."""

    def __init__(self, pairs: Pairs, bucket: int, seed: int, extra_seed: list[int]) -> None:
        indices = np.flatnonzero(pairs.buckets == bucket)
        codes = pairs.groups[indices]
        order = np.argsort(codes, kind="stable")
        _, first, self._sizes = np.unique(codes[order], return_index=True, return_counts=True)
        self._pairs, self._members, self._first = pairs, indices[order], first
        self._seed, self._extra_seed = seed, extra_seed
        self.groups = len(first)
        # A batch spans an epoch or two, but of a small set it may span several.
        self._epoch = lru_cache(maxsize=4)(self._shuffle_epoch)

    def __getitem__(self, position: int) -> Sample:
        epoch, slot = divmod(position, self.groups)
        order, members, captions = self._epoch(epoch)
        group = order[slot]
        index = int(self._members[self._first[group] + int(members[slot] * self._sizes[group])])
        pair = self._pairs[index]
        return Sample(index, pair.key, pair.captions[int(captions[slot] * len(pair.captions))])

    def _shuffle_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order of the groups, and for every slot two numbers in [0, 1): member and caption."""
        rng = np.random.default_rng([self._seed, epoch, *self._extra_seed])
        return rng.permutation(self.groups), rng.random(self.groups), rng.random(self.groups)
