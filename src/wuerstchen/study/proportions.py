"""Win rates: Wilson intervals, the exact sign test, and what votes of the same rater are worth.

The votes of one rater are alike, so n of them carry less information than n votes of n raters. The
design effect says how much less: the variance of the rate with raters as clusters, divided by its
variance with independent votes (Kish 1965). Wilson's interval is taken at n divided by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often system `a` wins against system `b`."""

    wins: int
    losses: int
    ties: int
    rate: float
    """Wins among the decided votes, in [0, 1]; NaN without any."""
    wilson: Interval
    """As if all votes were independent."""
    clustered: Interval | None
    """With raters as clusters; None for a single rater."""
    design_effect: float | None
    rate_with_ties: float
    """The same with each tie as half a win."""
    p: float
    """Two-sided exact sign test of equal wins and losses, as if all votes were independent."""
    p_clustered: float | None
    """t test of a rate of one half, with raters as clusters; None for a single rater."""


def wilson(rate: float, n: float, quantile: float | None = None) -> Interval:
    """Wilson's score interval of a rate of `n` trials; n need not be whole (Wilson 1927).

    quantile  of the reference distribution; by default the normal one at `CONFIDENCE`
    """
    if not n > 0:
        return Interval(0.0, 1.0)
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) if quantile is None else quantile
    shrink = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / shrink
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of the exact binomial test of one half; 1 without decided votes."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses).pvalue)


def clustered_variance(wins: Ints, decided: Ints) -> float:
    """Variance of the rate sum(wins) / sum(decided), linearised, with the G entries as clusters."""
    n = decided.sum()
    residuals = wins - wins.sum() / n * decided
    groups = int((decided > 0).sum())
    return float(groups / (groups - 1) * (residuals**2).sum() / n**2)


def win_rate(outcomes: Ints, raters: Ints) -> WinRate:
    """The win rate of votes.

    outcomes  (n,) 1 for a win, -1 for a loss, 0 for a tie
    raters    (n,) the index of each vote's rater
    """
    wins, losses = int((outcomes > 0).sum()), int((outcomes < 0).sum())
    ties, n = len(outcomes) - wins - losses, wins + losses
    rate = wins / n if n else math.nan
    size = int(raters.max()) + 1 if len(raters) else 0
    by_rater = np.bincount(raters[outcomes > 0], minlength=size).astype(np.int64)
    decided = np.bincount(raters[outcomes != 0], minlength=size).astype(np.int64)
    clustered: Interval | None = None
    effect = p_clustered = None
    groups = int((decided > 0).sum())
    if groups > 1:
        variance = clustered_variance(by_rater, decided)
        independent = rate * (1 - rate) / n
        # Without any variance the data say nothing about clusters.
        effect = variance / independent if variance > 0 and independent > 0 else 1.0
        clustered = wilson(rate, n / effect, float(stats.t.ppf(0.5 + CONFIDENCE / 2, groups - 1)))
        # The score test: the variance of one half, so that test and interval agree.
        score = (rate - 0.5) / math.sqrt(0.25 * effect / n)
        p_clustered = float(2 * stats.t.sf(abs(score), groups - 1))
    return WinRate(
        wins=wins,
        losses=losses,
        ties=ties,
        rate=rate,
        wilson=wilson(rate, n),
        clustered=clustered,
        design_effect=effect,
        rate_with_ties=(wins + ties / 2) / len(outcomes) if len(outcomes) else math.nan,
        p=sign_test(wins, losses),
        p_clustered=p_clustered,
    )


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for the number of tests (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
