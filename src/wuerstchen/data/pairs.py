"""The pairs of one split, with their decoded images."""

import hashlib
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import final

import numpy as np
from torch import Tensor

from wuerstchen.config import DataConfig
from wuerstchen.data.images import decode
from wuerstchen.data.items import Split
from wuerstchen.data.pair import Pair
from wuerstchen.errors import DataError
from wuerstchen.geometry import Shape


@final
class Pairs:
    """The usable pairs of one split, by index, with their decoded images."""

    def __init__(
        self,
        split: Split,
        pairs: Sequence[Pair],
        shapes: Sequence[Shape],
        buckets: np.ndarray,
        groups: np.ndarray,
        config: DataConfig,
        source: str = "",
    ) -> None:
        """
        shapes   that images may have
        buckets  (N,) places in `shapes`
        groups   (N,) numbers that rise from 0 as new groups come
        source   digest of the data, where that is known
        """
        self.split: Split = split
        self.config = config
        self.shapes, self.buckets, self.groups = shapes, buckets, groups
        self._pairs = pairs
        self._source = source
        self._kept: dict[int, Tensor] = {}
        self._room = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> Pair:
        return self._pairs[i]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def image(self, i: int) -> Tensor:
        """(3, H, W) uint8 RGB of image `i`; shared with the memory cache, so do not write to it.

        Raises DataError where an image that was fine when the data was opened no longer is.
        """
        kept = self._kept.get(i)
        if kept is not None:
            return kept
        pair = self._pairs[i]
        try:
            _, image = decode(pair.place.read(), self.shapes, self.config.background)
        except (OSError, DataError) as error:
            raise DataError(
                f"{pair.place.path}: image {pair.key} was fine when the data was opened, but "
                f"is not now: {error}. Leave the data in place while it is in use."
            ) from None
        self.keep(i, image)
        return image

    def digest(self, *, dated: bool = True) -> str:
        """Changes where images or captions do, or their order.

        dated  also where a file was written anew, which copying it elsewhere may look like
        """
        digest = hashlib.sha256(f"{self.split} {self._source}".encode())
        for pair in () if self._source else self._pairs:
            found = pair.place.path.stat()
            written = found.st_mtime_ns if dated else 0
            place = (pair.place.offset, pair.place.size, found.st_size, written)
            digest.update(repr((pair.key, pair.captions, pair.place.path.name, place)).encode())
        return digest.hexdigest()

    def allow(self, room: int) -> None:
        """Keep decoded images in so many bytes of memory."""
        self._room = room

    def keep(self, i: int, image: Tensor) -> bool:
        """Keep image `i` in memory, if there is room."""
        with self._lock:
            if i in self._kept:  # by another thread, just now
                return True
            if image.nbytes > self._room:
                return False
            self._room -= image.nbytes
            self._kept[i] = image
            return True

    def of_one_shape(self, count: int) -> list[int]:
        """The first images of the most frequent shape, at most `count`."""
        if not len(self):
            return []
        most = np.bincount(self.buckets).argmax()
        return [int(i) for i in np.flatnonzero(self.buckets == most)[:count]]
