"""Simulated raters of known preference, whose truth the analysis must find again."""

import numpy as np
import numpy.typing as npt

from wuerstchen.study.strengths import counts

Floats = npt.NDArray[np.float64]


def votes_of_raters(
    truth: Floats, nu: float, raters: int, votes: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Counts by rater of Davidson's model, drawn from its definition.

    Each rater compares `votes` random pairs of systems.
    """
    systems, n = len(truth), raters * votes
    a = rng.integers(systems, size=n)
    b = (a + rng.integers(1, systems, size=n)) % systems
    weights = np.stack(
        [np.exp(truth[a]), np.exp(truth[b]), nu * np.exp((truth[a] + truth[b]) / 2)], axis=1
    )
    drawn = rng.random(n)[:, None] * weights.sum(1, keepdims=True)
    outcome = np.array([1, -1, 0])[(drawn > weights.cumsum(1)).sum(1)]
    return counts(a, b, outcome, np.repeat(np.arange(raters), votes), systems)


def rates_of_raters(mean: float, spread: float, raters: int, rng: np.random.Generator) -> Floats:
    """A win rate for each rater, from a beta distribution with this mean.

    spread  the correlation of two votes of the same rater; 0 for none
    """
    if spread == 0:
        return np.full(raters, mean)
    size = 1 / spread - 1
    return rng.beta(mean * size, (1 - mean) * size, size=raters)
