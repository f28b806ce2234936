"""Images that are copies of each other: equal looks, or looks that differ in a few bits.

N images.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BANDS = 4
BITS = 16
"""A look is four bands of 16 bits: two looks with at most m different bits have a band in which at
most m // 4 differ, so that only images with such a band are compared."""

TINT = 4
"""Most difference of a mean colour, of 255 levels, between copies."""

AT_ONCE = 4_000_000
"""Comparisons at once: bounds the memory."""


def clusters(looks: np.ndarray, tints: np.ndarray, most: int) -> np.ndarray:
    """(N,) numbers, equal for images that are copies, perhaps by way of others.

    looks  (N,) uint64 perceptual hashes
    tints  (N, F) uint8, mean colours of fields
    most   bits in which the looks of copies may differ
    """
    both = np.concatenate([looks[:, None].view(np.uint8), tints], axis=1)
    distinct, place = np.unique(both, axis=0, return_inverse=True)
    pairs = list(_close_pairs(distinct[:, :8].copy().view(np.uint64)[:, 0], distinct[:, 8:], most))
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    count = len(distinct)
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, labels = connected_components(links, directed=False)
    return np.asarray(labels)[place.reshape(-1)]


def _close_pairs(
    looks: np.ndarray, tints: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of images that are copies; some pairs come more than once."""
    yield np.zeros(0, np.int64), np.zeros(0, np.int64)
    colours = tints.astype(np.int16)  # (N, F)
    for band in range(BANDS):
        values = (looks >> np.uint64(BITS * band)).astype(np.uint16)
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        for mask in _masks(most // BANDS):
            wanted = values ^ mask
            low = np.searchsorted(ordered, wanted, "left")
            high = np.searchsorted(ordered, wanted, "right")
            for first, second in _spread(order, low, high):
                near = np.bitwise_count(looks[first] ^ looks[second]) <= most
                first, second = first[near], second[near]
                alike = (np.abs(colours[first] - colours[second]) <= TINT).all(axis=1)
                yield first[alike], second[alike]


def _masks(bits: int) -> list[np.uint16]:
    """All words with at most so many bits set."""
    chosen = (each for count in range(bits + 1) for each in combinations(range(BITS), count))
    return [np.uint16(sum(1 << bit for bit in each)) for each in chosen]


def _spread(
    order: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs i < order[k] for all k from low[i] to high[i], a few million at a time."""
    counts = high - low
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + AT_ONCE, "right")), start + 1)
        part = counts[start:stop]
        first = np.repeat(np.arange(start, stop), part)
        inside = np.arange(len(first)) - np.repeat(np.cumsum(part) - part, part)
        second = order[np.repeat(low[start:stop], part) + inside]
        keep = first < second
        yield first[keep], second[keep]
        start = stop
