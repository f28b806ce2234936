"""Strengths of systems from paired comparisons: Bradley-Terry, and Davidson's model with ties.

With strengths s of sum zero and a tie parameter nu, the outcomes of i against j have weights
(Bradley and Terry 1952; Davidson 1970)

    i wins: exp(s_i)    j wins: exp(s_j)    tie: nu * exp((s_i + s_j) / 2)

Without ties nu is 0 and this is Bradley-Terry. Both are exponential families, so the likelihood
is concave and Newton's method finds its maximum. Intervals come from a bootstrap over raters,
who are drawn with replacement with all of their votes.

Letters: K systems, R raters, B data sets that are fitted together.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse.csgraph import connected_components

from wuerstchen.errors import DataError
from wuerstchen.study.proportions import CONFIDENCE, Floats, Interval, Ints

REPLICATES = 1000
MAX_UNBOUNDED = 0.05
"""Share of bootstrap replicates without a maximum from which on no interval is given."""

_STEPS, _TOLERANCE = 60, 1e-10


@dataclass(frozen=True, slots=True)
class Strengths:
    """Fitted strengths: a difference of d is a chance of 1 / (1 + exp(-d)) in a decided vote."""

    values: tuple[float, ...]
    """(K,) logits of sum zero."""
    intervals: tuple[Interval, ...] | None
    """(K,) None with fewer than two raters, or if too many replicates have no maximum."""
    nu: float
    """Davidson's tie parameter: nu / (2 + nu) is the share of ties between equal systems."""
    left_out: int
    """Bootstrap replicates that have no maximum."""


def counts(a: Ints, b: Ints, outcomes: Ints, raters: Ints, systems: int) -> tuple[Floats, Floats]:
    """Votes as counts by rater: wins of i against j (R, K, K), and ties (R, K, K), symmetric."""
    size = int(raters.max()) + 1 if len(raters) else 0
    wins, ties = np.zeros((size, systems, systems)), np.zeros((size, systems, systems))
    winner, loser = np.where(outcomes > 0, a, b), np.where(outcomes > 0, b, a)
    decided, tied = outcomes != 0, outcomes == 0
    np.add.at(wins, (raters[decided], winner[decided], loser[decided]), 1)
    np.add.at(ties, (raters[tied], a[tied], b[tied]), 1)
    return wins, ties + ties.transpose(0, 2, 1)


def has_maximum(wins: Floats, ties: Floats) -> bool:
    """Whether the likelihood of (K, K) counts has a maximum.

    From every system there must be a path of wins or ties to every other (Ford 1957). With ties
    there must also be a circle of more wins than ties: without one, strengths that differ by
    1, 2, ... steps explain every outcome, the better the larger the step and nu are together.
    """
    parts = connected_components(wins + ties > 0, connection="strong", return_labels=False)
    if parts > 1 or not wins.sum():
        return False
    if not ties.sum():
        return True
    cost = np.where(wins > 0, -1.0, np.where(ties > 0, 1.0, np.inf))
    for k in range(len(cost)):  # Floyd-Warshall: a circle of negative cost is what is looked for
        cost = np.minimum(cost, cost[:, k, None] + cost[k])
    return bool((np.diag(cost) < 0).any())


def fit(wins: Floats, ties: Floats) -> tuple[Floats, Floats]:
    """Strengths (B, K) and nu (B,) of counts (B, K, K); NaN where there is no maximum."""
    total, systems = len(wins), wins.shape[-1]
    strengths, log_nu = np.zeros((total, systems)), np.full(total, -1.0)
    tied = ties.sum((1, 2)) > 0
    log_nu[~tied] = -np.inf
    n = wins + wins.transpose(0, 2, 1) + ties  # (B, K, K) symmetric
    observed = np.concatenate(
        [wins.sum(2) + ties.sum(2) / 2, ties.sum((1, 2))[:, None] / 2], axis=1
    )  # (B, K + 1)
    good = np.ones(total, dtype=bool)
    for _ in range(_STEPS):
        gradient, information = _derivatives(strengths, log_nu, n, observed)
        information[~tied, -1, -1] = 1.0  # nu stays 0 there
        information[:, :-1, :-1] += 1.0 / systems  # fixes the sum at zero
        gradient[~tied, -1] = 0.0
        good &= np.isfinite(information).all((1, 2))
        information[~good], gradient[~good] = np.eye(systems + 1), 0.0
        singular = np.linalg.cond(information) > 1e12
        good &= ~singular
        information[singular], gradient[singular] = np.eye(systems + 1), 0.0
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        step /= np.maximum(1.0, np.abs(step).max(1, keepdims=True) / 2)  # no leap beyond 2 logits
        strengths += step[:, :-1]
        log_nu += step[:, -1]
        if np.abs(step).max(initial=0.0) < _TOLERANCE:
            break
    good &= np.abs(step).max(1) < 1e-6
    strengths[~good] = np.nan
    nu = np.exp(log_nu)
    nu[~good] = np.nan
    return strengths - strengths.mean(1, keepdims=True), nu


def _derivatives(
    strengths: Floats, log_nu: Floats, n: Floats, observed: Floats
) -> tuple[Floats, Floats]:
    """Gradient (B, K + 1) and Fisher information (B, K + 1, K + 1) of the log-likelihood."""
    half = (strengths[:, :, None] - strengths[:, None, :]) / 2  # (B, K, K)
    tie = np.exp(log_nu)[:, None, None]
    weights = np.exp(half) + np.exp(-half) + tie
    win, tie = np.exp(half) / weights, tie / weights  # of i against j
    score = win + tie / 2  # expected, a tie is half
    diagonal = n * (win + tie / 4 - score**2)
    expected = np.concatenate([(n * score).sum(2), (n * tie).sum((1, 2))[:, None] / 2], axis=1)
    systems = n.shape[-1]
    information = np.zeros((len(n), systems + 1, systems + 1))
    information[:, :-1, :-1] = -diagonal  # cov of i's and j's score
    index = np.arange(systems)
    information[:, index, index] += diagonal.sum(2)
    cross = (n * (tie / 2 - score * tie)).sum(2)  # of score and tie
    information[:, :-1, -1] = information[:, -1, :-1] = cross
    information[:, -1, -1] = (n * tie * (1 - tie)).sum((1, 2)) / 2
    return observed - expected, information


def estimate_strengths(
    wins: Floats, ties: Floats, seed: int = 0, replicates: int = REPLICATES
) -> Strengths:
    """Strengths of counts by rater (R, K, K) with intervals.

    An interval is the estimate plus and minus the standard error of the bootstrap times the t
    quantile with R - 1 degrees of freedom, which unlike percentiles allows for few raters.

    Raises DataError if the likelihood has no maximum, or none that is found.
    """
    if not has_maximum(wins.sum(0), ties.sum(0)):
        raise DataError(
            "Expected wins in both directions between all systems, found a system, or a "
            "group of systems, that never lost or never won; its strength has no bound, "
            "so read the win rates, or collect more votes."
        )
    values, nu = fit(wins.sum(0)[None], ties.sum(0)[None])
    if not np.isfinite(values).all():
        raise DataError(
            "Expected strengths within bounds, found votes so one-sided that they could not be "
            "fitted; read the win rates, or collect more votes."
        )
    raters = len(wins)
    intervals, left_out = None, 0
    if raters > 1:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(raters, np.full(raters, 1 / raters), size=replicates)
        drawn_wins = np.einsum("br,rij->bij", draws, wins)
        drawn_ties = np.einsum("br,rij->bij", draws, ties)
        found, _ = fit(drawn_wins, drawn_ties)
        kept = found[np.isfinite(found).all(1)]
        left_out = replicates - len(kept)
        if left_out <= MAX_UNBOUNDED * replicates:
            # Drawing from R raters understates the variance by (R - 1) / R.
            error = kept.std(0) * math.sqrt(raters / (raters - 1))
            reach = error * float(stats.t.ppf(0.5 + CONFIDENCE / 2, raters - 1))
            intervals = tuple(
                Interval(float(value - r), float(value + r))
                for value, r in zip(values[0], reach, strict=True)
            )
    return Strengths(tuple(map(float, values[0])), intervals, float(nu[0]), left_out)
