"""Monge distance of two sets of features. N, M images, F features, P projections."""

import torch
from torch import Tensor

from wuerstchen.errors import DataError
from wuerstchen.noise import generator_of

PROJECTIONS = 1024

QUANTILES = 512
"""Levels at which sets of different sizes are compared."""


def mind(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Monge distance of (N, F) and (M, F) features (arXiv:2605.06797), good for small sets.

    The squared 2-Wasserstein distance of the projections onto a random direction, averaged over
    `PROJECTIONS` directions and multiplied by F, so that moving one set by a vector gives the
    vector's squared length. Raises DataError for an empty set.
    """
    if not len(a) or not len(b):
        raise DataError(f"A distance needs images on each side, found {len(a)} and {len(b)}.")
    dims = a.shape[1]
    directions = torch.randn(dims, PROJECTIONS, generator=generator_of(seed), dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    one, other = (x.double() @ directions for x in (a, b))  # (N, P), (M, P)
    if len(one) == len(other):
        one, other = one.sort(dim=0).values, other.sort(dim=0).values
    else:
        levels = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
        one, other = (torch.quantile(x, levels, dim=0) for x in (one, other))
    return dims * float((one - other).square().mean())
