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
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    a, b = _factor(a), _factor(b)
    # The eigenvalues of (A^T A)(B^T B) are the squares of the singular values of A B^T.
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return max(0.0, float(means + a.square().sum() + b.square().sum() - 2 * cross))


def check_counts(a: Tensor, b: Tensor) -> None:
    """Raise DataError for sets of fewer than two images."""
    if min(len(a), len(b)) < 2:
        raise DataError(
            f"A Fréchet distance needs at least two images on each side, found {len(a)} and "
            f"{len(b)}: one image has no covariance; measure more images."
        )


def _factor(x: Tensor) -> Tensor:
    """A of (N, F), with A^T A the unbiased covariance: (N, F), or (F, F) if N is greater.

    Square roots of covariances of few samples are not taken: their many eigenvalues of 0 are
    what the eigenvalue solver fails on.
    """
    centred: Tensor = (x - x.mean(dim=0)) / float(len(x) - 1) ** 0.5
    if len(centred) > centred.shape[1]:
        centred = torch.linalg.qr(centred, mode="r").R
    return centred
