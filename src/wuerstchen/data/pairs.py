"""Pairs of an image and its captions, and the pairs of one split with their decoded images."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import final

import numpy as np
from torch import Tensor

from wuerstchen.config import DataConfig
from wuerstchen.data.images import decode
from wuerstchen.data.items import ByteRange, Split
from wuerstchen.errors import DataError
from wuerstchen.geometry import Shape, bucket_shapes


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and the captions that may be shown with it."""

    key: str
    """Unique in the data: the relative path, or the key inside the tar."""
    captions: tuple[str, ...]
    """At least one; none is empty, all are stripped."""
    group: str
    """Value of the metadata field data.balance_by, or the key."""
    file: ByteRange | None
    """The encoded image; None if it is composed."""


def training_shapes(config: DataConfig) -> list[Shape]:
    return bucket_shapes(config.size) if config.buckets else [Shape(config.size, config.size)]


@final
class Pairs:
    """The usable pairs of one split, with a cache of decoded images."""

    def __init__(
        self,
        split: Split,
        pairs: Sequence[Pair],
        buckets: np.ndarray,
        groups: np.ndarray,
        config: DataConfig,
        *,
        cache: Mapping[int, Tensor] | None = None,
        cache_bytes: int = 0,
        compose: Callable[[int], Tensor] | None = None,
        source_digest: str = "",
    ) -> None:
        """
        buckets        (N,) indices into `training_shapes`
        groups         (N,) group numbers, counted from 0
        cache          decoded images by index
        cache_bytes    memory for more of them
        compose        makes the image at an index, (3, H, W) uint8, of pairs without files
        source_digest  digest of the data, if it is already known
        """
        self.split: Split = split
        self.config = config
        self.shapes, self.buckets, self.groups = training_shapes(config), buckets, groups
        self._pairs, self._compose = pairs, compose
        self._source_digest = source_digest
        self._cache = dict(cache or {})
        self._free_bytes = cache_bytes
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> Pair:
        return self._pairs[i]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def image(self, i: int) -> Tensor:
        """(3, H, W) uint8 RGB of image `i`; shared with the cache, so do not write to it.

        Raises DataError if the file has become unreadable since the data was opened.
        """
        cached = self._cache.get(i)
        if cached is not None:
            return cached
        image = self._decode(i) if self._compose is None else self._compose(i)
        with self._lock:
            if i not in self._cache and image.nbytes <= self._free_bytes:
                self._free_bytes -= image.nbytes
                self._cache[i] = image
        return image

    def _decode(self, i: int) -> Tensor:
        pair = self._pairs[i]
        assert pair.file is not None
        try:
            return decode(pair.file.read(), self.shapes, self.config.background)[1]
        except (OSError, DataError) as error:
            raise DataError(_explain_unreadable(pair.key, pair.file, error)) from None

    def digest(self, *, dated: bool = True) -> str:
        """A digest of the images, captions and their order.

        dated  include modification times, which copying the files may change
        """
        digest = hashlib.sha256(f"{self.split} {self._source_digest}".encode())
        for pair in () if self._source_digest else self._pairs:
            assert pair.file is not None
            found = pair.file.path.stat()
            modified = found.st_mtime_ns if dated else 0
            place = (pair.file.offset, pair.file.size, found.st_size, modified)
            digest.update(repr((pair.key, pair.captions, pair.file.path.name, place)).encode())
        return digest.hexdigest()

    def with_most_common_shape(self, count: int) -> list[int]:
        """Indices of the first images of the most common shape, at most `count`."""
        if not len(self):
            return []
        bucket = np.bincount(self.buckets).argmax()
        return [int(i) for i in np.flatnonzero(self.buckets == bucket)[:count]]


def _explain_unreadable(key: str, file: ByteRange, error: OSError | DataError) -> str:
    if file.sha256:  # images of a prepared set are not read when it is opened
        return (
            f"{file.path}: expected image {key} as `wuerstchen prepare` wrote it, found damage: "
            f"{error}. Copy the set again, or delete it and prepare it again."
        )
    return (
        f"{file.path}: image {key} could be read when the data was opened, but not any more: "
        f"{error}. Do not change the data while it is in use."
    )
