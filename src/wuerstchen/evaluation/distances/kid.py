"""Kernel Inception distance: squared maximum mean discrepancy. N, M images, F features."""

import torch
from torch import Tensor

from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.spread import Spread
from wuerstchen.noise import generator_of

SUBSETS, SUBSET_SIZE = 100, 1000
"""As usual since the paper; sets of fewer than twice this size are halved instead."""


def subset_size(n: int) -> int:
    """Images of a subset where the smaller set has `n`: the whole set would show no spread."""
    return min(SUBSET_SIZE, max(2, n // 2))


def kid(a: Tensor, b: Tensor, seed: int = 0) -> Spread:
    """KID of (N, F) and (M, F) features (arXiv:1801.01401), mean and deviation over subsets.

    The estimate is unbiased, so that its mean depends neither on N nor on the subsets' size, and
    that of equal distributions is around 0, also below. Raises DataError for a single image.
    """
    if min(len(a), len(b)) < 2:
        raise DataError(
            f"A kernel distance needs at least two images on each side, found {len(a)} and "
            f"{len(b)}; measure more images."
        )
    rng, size = generator_of(seed), subset_size(min(len(a), len(b)))
    values = []
    for _ in range(SUBSETS):
        x, y = (each[torch.randperm(len(each), generator=rng)[:size]].double() for each in (a, b))
        values.append(squared_mmd(x, y))
    found = torch.tensor(values, dtype=torch.float64)
    return Spread(float(found.mean()), float(found.std(correction=0)))


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of (N, F) and (M, F) features with the cubic kernel (x y / F + 1)^3."""
    within = sum(_mean_off_diagonal(_kernel(each, each)) for each in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(square: Tensor) -> Tensor:
    n = len(square)
    return (square.sum() - square.trace()) / (n * (n - 1))
