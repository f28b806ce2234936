"""Precision and recall, density and coverage: overlap of two sets. N real, M drawn images.

Each image stands for the ball that reaches its k-th nearest neighbour of the same set.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wuerstchen.errors import DataError

PRECISION_K, DENSITY_K = 3, 5
"""Neighbours, as in the papers."""

ROWS = 1024
"""Distances are computed for this many images at a time, for bounded memory."""


class Overlap(NamedTuple):
    precision: float
    """Fraction of drawn images inside a real one's ball: do they look real?"""
    recall: float
    """Fraction of real images inside a drawn one's ball: is everything drawn?"""
    density: float
    """Real balls around a drawn image, over k: precision that outliers do not raise; up to N/k."""
    coverage: float
    """Fraction of real images whose ball holds a drawn one."""


def overlap(real: Tensor, drawn: Tensor) -> Overlap:
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797).

    Of (N, F) and (M, F) features. Raises DataError unless both have more images than neighbours.
    """
    if min(len(real), len(drawn)) <= DENSITY_K:
        raise DataError(
            f"Precision, recall, density and coverage need at least {DENSITY_K + 1} images on each "
            f"side, found {len(real)} and {len(drawn)}; measure more images."
        )
    real, drawn = real.double(), drawn.double()
    nearest = _nearest_distances(real)
    around_real = nearest[:, PRECISION_K - 1]
    around_drawn = _nearest_distances(drawn)[:, PRECISION_K - 1]
    around_real_wide = nearest[:, DENSITY_K - 1]
    precise, recalled = 0, torch.zeros(len(real), dtype=torch.bool)
    balls, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    for start in range(0, len(drawn), ROWS):
        distance = torch.cdist(drawn[start : start + ROWS], real)  # (rows, N)
        precise += int((distance <= around_real).any(dim=1).sum())
        recalled |= (distance <= around_drawn[start : start + ROWS, None]).any(dim=0)
        inside = distance <= around_real_wide
        balls += int(inside.sum())
        covered |= inside.any(dim=0)
    return Overlap(
        precise / len(drawn),
        float(recalled.double().mean()),
        balls / (DENSITY_K * len(drawn)),
        float(covered.double().mean()),
    )


def _nearest_distances(x: Tensor) -> Tensor:
    """(N, F) to (N, DENSITY_K) distances to the nearest others of the set, nearest first."""
    found = []
    for start in range(0, len(x), ROWS):
        distance = torch.cdist(x[start : start + ROWS], x)
        own = torch.arange(start, start + len(distance))
        distance[torch.arange(len(distance)), own] = torch.inf
        found.append(distance.topk(DENSITY_K, dim=1, largest=False).values)
    return torch.cat(found)
