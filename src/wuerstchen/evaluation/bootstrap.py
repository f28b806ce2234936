"""Percentile intervals over prompts, each with all that was measured on it."""

import torch
from torch import Tensor

from wuerstchen.evaluation.metrics import Estimate
from wuerstchen.noise import generator_of

RESAMPLES = 10_000

LEVELS = (0.025, 0.975)
"""Quantiles of the 95 % interval."""


def paired_difference(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """The mean of b - a, (N,) each, with the 95 % percentile interval over resampled pairs."""
    difference = (b - a).double()
    low, high = _interval(_resampled_means(difference, seed))
    return Estimate(float(difference.mean()), low, high, len(difference))


def paired_ratio(a: Tensor, b: Tensor, seed: int = 0) -> Estimate | None:
    """The mean of b over that of a, (N,) each and >= 0, with the same kind of interval.

    None if all of a is 0; samples in which all of a is 0 are left out.
    """
    pairs = torch.stack([a, b], dim=1).double()
    of_a, of_b = pairs.mean(dim=0).tolist()
    if not of_a:
        return None
    means = _resampled_means(pairs, seed)
    means = means[means[:, 0] > 0]
    low, high = _interval(means[:, 1] / means[:, 0])
    return Estimate(of_b / of_a, low, high, len(pairs))


def _resampled_means(values: Tensor, seed: int) -> Tensor:
    """(N, ...) to the (RESAMPLES, ...) means of samples of N, drawn with replacement."""
    n, rng = len(values), generator_of(seed)
    rows = max(1, 1_000_000 // n)  # resampled at a time, for bounded memory
    return torch.cat(
        [
            values[torch.randint(n, (min(rows, RESAMPLES - start), n), generator=rng)].mean(1)
            for start in range(0, RESAMPLES, rows)
        ]
    )


def _interval(values: Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor(LEVELS, dtype=torch.float64)).tolist()
    return low, high
