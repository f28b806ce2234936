"""Two sets of semantics compared: where they lie and how far they spread.

N, M images, S channels, h x w cells, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

RELABELLINGS = 50
"""Random halves that say how far apart sets of the same distribution lie by chance: their mean is
then known to a seventh of their spread."""

LEAST_SPREAD = 1e-6
"""Less is no spread: nothing is divided by it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How far drawn semantics lie from true ones."""

    distance: float
    """Fréchet distance of their features; 0 is the same mean and covariance."""
    by_chance: float
    """What sets of the same sizes have that are drawn from the two together: a small sample is
    never at 0."""
    contrast: float
    """Spread of the drawn semantics over that of the true ones, geometric mean over channels."""

    @property
    def times_chance(self) -> float:
        return self.distance / max(self.by_chance, LEAST_SPREAD)


@dataclass(frozen=True, slots=True)
class Moments:
    """(S,) mean and standard deviation of every channel over images and cells."""

    mean: list[float]
    spread: list[float]


def moments(semantics: Tensor) -> Moments:
    """Of (N, S, h, w)."""
    cells = semantics.double().transpose(0, 1).flatten(1)  # (S, N h w)
    spread = cells.std(dim=1, correction=0)
    return Moments(cells.mean(dim=1).tolist(), spread.tolist())


def gap(true: Tensor, drawn: Tensor, seed: int) -> Gap:
    """Compare (N, S, h, w) true with (M, S, h, w) drawn semantics, of at least one image each."""
    scale = _features(true).std(dim=0, correction=0)
    scale[scale < LEAST_SPREAD] = 1.0  # of a single image, or where nothing varies
    a, b = (_features(x) / scale for x in (true, drawn))
    both = torch.cat([a, b])
    stream = torch.Generator().manual_seed(seed)
    chance = [
        frechet(both[order[: len(a)]], both[order[len(a) :]])
        for order in (torch.randperm(len(both), generator=stream) for _ in range(RELABELLINGS))
    ]
    wide, narrow = (torch.tensor(moments(x).spread).clamp_min(LEAST_SPREAD) for x in (drawn, true))
    return Gap(frechet(a, b), sum(chance) / len(chance), float((wide / narrow).log().mean().exp()))


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the Gaussians of (N, F) and (M, F) features (Dowson and Landau 1982).

    Nothing is inverted, so fewer samples than features do no harm but for the bias of all small
    samples, which `Gap.by_chance` measures.
    """
    a, b = a.double(), b.double()
    root = _root(_covariance(a))
    middle = _root(root @ _covariance(b) @ root)
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    traces = _covariance(a).trace() + _covariance(b).trace() - 2 * middle.trace()
    return max(0.0, float(means + traces))


def _features(semantics: Tensor) -> Tensor:
    """(N, S, h, w) to (N, 2 S): mean and spread of each channel over the cells of an image."""
    cells = semantics.double().flatten(2)  # (N, S, h w)
    return torch.cat([cells.mean(dim=2), cells.std(dim=2, correction=0)], dim=1)


def _covariance(x: Tensor) -> Tensor:
    """(N, F) to (F, F), divided by N: a single row has none."""
    centred = x - x.mean(dim=0)
    return centred.T @ centred / len(x)


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
