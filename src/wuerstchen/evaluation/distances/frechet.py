"""Fréchet distance of two sets of features. N, M images, F features."""

import torch
from torch import Tensor

from wuerstchen.errors import DataError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the Gaussians of (N, F) and (M, F) features (Dowson and Landau 1982).

    Means and covariances are the unbiased estimates, so N and M are at least 2: DataError for
    fewer. Nothing is inverted, so there may be fewer samples than features. The distance of small
    samples is still too large on average.
    """
    check_counts(a, b)
    a, b = a.double(), b.double()
    root = _sqrt(_covariance(a))
    cross = _sqrt(root @ _covariance(b) @ root)
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    traces = _covariance(a).trace() + _covariance(b).trace() - 2 * cross.trace()
    return max(0.0, float(means + traces))


def check_counts(a: Tensor, b: Tensor) -> None:
    """Raise DataError for sets of fewer than two images."""
    if min(len(a), len(b)) < 2:
        raise DataError(
            f"A Fréchet distance needs at least two images on each side, found {len(a)} and "
            f"{len(b)}: one image has no covariance; measure more images."
        )


def _covariance(x: Tensor) -> Tensor:
    """(N, F) to (F, F), divided by N - 1: the unbiased estimate."""
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1)


def _sqrt(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semidefinite matrix; rounding may leave it below 0."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
