"""Find duplicates: images whose perceptual hashes differ in at most a few bits."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wuerstchen.config import PrepareConfig
from wuerstchen.data.prepared import PERCEPTUAL_HASH

CHROMA = "tint"
"""Column of the mean chroma."""

MAX_CHROMA_DIFFERENCE = 4
"""Between duplicates, of 255 levels."""

_BANDS, _BITS = 4, 16
"""A hash is four bands of 16 bits: two hashes with at most m different bits have a band in which at
most m // 4 differ, so only images with such a band are compared."""

_CHUNK = 4_000_000
"""Comparisons at a time: limits memory."""

NEAR_BITS = PrepareConfig.model_fields["duplicate_distance"].default
"""Bits in which duplicates across splits may differ, if they are not dropped but only counted."""


class Duplicate(NamedTuple):
    """A row that is dropped, and the one that is kept in its place."""

    row: int
    original: int
    across_splits: bool
    """The source had this row in the train split and the original in the test split."""


class Overlap(NamedTuple):
    """Training images that are duplicates of held-out images and are kept."""

    equal: int
    near: int


def find_duplicates(rows: pa.Table, distance: int | None) -> list[Duplicate]:
    """Rows to drop. Of each cluster a held-out image is kept, else the largest, else the first."""
    if distance is None or not len(rows):
        return []
    labels = _clusters_of(rows, distance)
    width, height = (rows.column(f"source_{side}").cast("int64") for side in ("width", "height"))
    area = pc.multiply(width, height).to_numpy()
    test = pc.equal(rows.column("split"), "test").to_numpy()
    order = np.lexsort((np.arange(len(rows)), -area, ~test, labels))
    originals: dict[int, int] = {}
    found = []
    for row in order.tolist():
        original = originals.setdefault(int(labels[row]), row)
        if original != row:
            found.append(Duplicate(row, original, bool(test[original]) and not test[row]))
    return sorted(found)


def count_overlap(kept: pa.Table, distance: int | None) -> Overlap:
    """Duplicates across the splits of `kept`; none if dropping was at least as strict."""
    test = pc.equal(kept.column("split"), "test").to_numpy()
    if (distance is not None and distance >= NEAR_BITS) or not test.any():
        return Overlap(0, 0)
    labels, hashes = _clusters_of(kept, NEAR_BITS), kept.column("hash").to_numpy()
    equal = ~test & np.isin(hashes, np.unique(hashes[test]))
    near = ~test & np.isin(labels, np.unique(labels[test])) & ~equal
    return Overlap(int(equal.sum()), int(near.sum()))


def _clusters_of(rows: pa.Table, distance: int) -> np.ndarray:
    chroma = np.frombuffer(b"".join(rows.column(CHROMA).to_pylist()), np.uint8)
    hashes = rows.column(PERCEPTUAL_HASH).to_numpy().astype(np.uint64)
    return clusters(hashes, chroma.reshape(len(rows), -1), distance)


def clusters(hashes: np.ndarray, chroma: np.ndarray, distance: int) -> np.ndarray:
    """(N,) numbers, equal for images that are connected by a chain of duplicates.

    hashes    (N,) uint64 perceptual hashes
    chroma    (N, F) uint8
    distance  bits in which the hashes of duplicates may differ
    """
    both = np.concatenate([hashes[:, None].view(np.uint8), chroma], axis=1)
    distinct, inverse = np.unique(both, axis=0, return_inverse=True)
    distinct_hashes = distinct[:, :8].copy().view(np.uint64)[:, 0]
    pairs = list(_close_pairs(distinct_hashes, distinct[:, 8:], distance))
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    shape = (len(distinct), len(distinct))
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=shape)
    labels = np.asarray(connected_components(links, directed=False)[1])
    return labels[inverse.reshape(-1)]


def _close_pairs(
    hashes: np.ndarray, chroma: np.ndarray, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of duplicates; some pairs come more than once."""
    yield np.zeros(0, np.int64), np.zeros(0, np.int64)
    colours = chroma.astype(np.int16)  # (N, F)
    for band in range(_BANDS):
        values = (hashes >> np.uint64(_BITS * band)).astype(np.uint16)
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        for mask in _masks(distance // _BANDS):
            target = values ^ mask
            low = np.searchsorted(ordered, target, "left")
            high = np.searchsorted(ordered, target, "right")
            for first, second in _candidates(order, low, high):
                near = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
                first, second = first[near], second[near]
                difference = np.abs(colours[first] - colours[second])
                alike = (difference <= MAX_CHROMA_DIFFERENCE).all(axis=1)
                yield first[alike], second[alike]


def _masks(bits: int) -> list[np.uint16]:
    """All 16-bit numbers with at most this many bits set."""
    chosen = (each for count in range(bits + 1) for each in combinations(range(_BITS), count))
    return [np.uint16(sum(1 << bit for bit in each)) for each in chosen]


def _candidates(
    order: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs i < order[k] for all k from low[i] to high[i], in chunks."""
    counts = high - low
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + _CHUNK, "right")), start + 1)
        chunk = counts[start:stop]
        first = np.repeat(np.arange(start, stop), chunk)
        inside = np.arange(len(first)) - np.repeat(np.cumsum(chunk) - chunk, chunk)
        second = order[np.repeat(low[start:stop], chunk) + inside]
        keep = first < second
        yield first[keep], second[keep]
        start = stop
