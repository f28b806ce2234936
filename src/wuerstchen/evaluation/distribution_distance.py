"""Fréchet distance and spread of generated against true semantics.

N, M images, S channels, h x w cells, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wuerstchen.evaluation.distances.frechet import check_counts, frechet_distance
from wuerstchen.noise import generator_of

PERMUTATIONS = 50
"""Random relabellings whose mean distance is the chance level, known to a seventh of its spread."""

MIN_STD = 1e-6
"""Smaller standard deviations count as none: nothing is divided by them."""


@dataclass(frozen=True, slots=True)
class SemanticsDistance:
    """How far generated semantics are from true ones."""

    frechet: float
    """Fréchet distance of their features; 0 for equal mean and covariance."""
    chance: float
    """Mean distance of random halves of the pooled sets: small samples are never at 0."""
    std_ratio: float
    """Standard deviation of generated over true semantics, geometric mean over channels."""

    @property
    def over_chance(self) -> float:
        return self.frechet / max(self.chance, MIN_STD)


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """(S,) mean and standard deviation of every channel over images and cells."""

    mean: list[float]
    std: list[float]


def channel_stats(semantics: Tensor) -> ChannelStats:
    """Mean and standard deviation of (N, S, h, w) semantics."""
    cells = semantics.double().transpose(0, 1).flatten(1)  # (S, N h w)
    return ChannelStats(cells.mean(dim=1).tolist(), cells.std(dim=1, correction=0).tolist())


def compare_semantics(true: Tensor, generated: Tensor, seed: int) -> SemanticsDistance:
    """Compare (N, S, h, w) true with (M, S, h, w) generated semantics, at least two images each.

    Raises DataError for fewer.
    """
    check_counts(true, generated)
    scale = _features(true).std(dim=0)
    scale[scale < MIN_STD] = 1.0  # a constant feature
    a, b = (_features(x) / scale for x in (true, generated))
    pooled = torch.cat([a, b])
    rng = generator_of(seed)
    chance = [
        frechet_distance(pooled[order[: len(a)]], pooled[order[len(a) :]])
        for order in (torch.randperm(len(pooled), generator=rng) for _ in range(PERMUTATIONS))
    ]
    std_generated, std_true = (
        torch.tensor(channel_stats(x).std).clamp_min(MIN_STD) for x in (generated, true)
    )
    return SemanticsDistance(
        frechet_distance(a, b),
        sum(chance) / len(chance),
        float((std_generated / std_true).log().mean().exp()),
    )


def _features(semantics: Tensor) -> Tensor:
    """(N, S, h, w) to (N, 2 S): mean and standard deviation of each channel of an image."""
    cells = semantics.double().flatten(2)  # (N, S, h w)
    return torch.cat([cells.mean(dim=2), cells.std(dim=2, correction=0)], dim=1)
