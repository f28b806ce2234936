"""How many votes a study needs, before it starts."""

import math
from dataclasses import dataclass

from scipy import stats

from wuerstchen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Power:
    """The size of a study that detects a win rate."""

    win_rate: float
    decided: int
    """Decided votes that would be enough if all were independent."""
    design_effect: float
    votes: int
    """Votes of all raters between two systems, ties included."""
    raters: int
    """Raters, at the stated number of votes each."""


def independent_votes(win_rate: float, power: float = 0.8, level: float = 0.05) -> int:
    """Decided votes with which a two-sided test of one half detects `win_rate`.

    By the normal approximation of the binomial test (Fleiss, Levin and Paik 2003, section 2.3).
    """
    z_level, z_power = float(stats.norm.ppf(1 - level / 2)), float(stats.norm.ppf(power))
    spread = z_level * 0.5 + z_power * math.sqrt(win_rate * (1 - win_rate))
    return math.ceil((spread / (win_rate - 0.5)) ** 2)


def votes_needed(
    win_rate: float,
    *,
    ties: float = 0.15,
    votes_per_rater: int = 50,
    correlation: float = 0.02,
    power: float = 0.8,
    level: float = 0.05,
) -> Power:
    """Raters, and their votes between two systems, that detect a win rate; raters are clusters.

    win_rate         among decided votes, in (0, 1) but not 0.5
    ties             expected share of ties, in [0, 1)
    votes_per_rater  m, between these two systems
    correlation      of two decided votes of the same rater, in [0, 1]: the design effect is
                     1 + (m - 1) * correlation, with the decided ones among m (Kish 1965)

    Raises ConfigError for values outside of these ranges.
    """
    _check("win rate", win_rate, 0, 1)
    if win_rate == 0.5:
        raise ConfigError("Expected a win rate other than 0.5: no number of votes detects it.")
    _check("power", power, level, 1)
    _check("level", level, 0, 1)
    if not 0 <= ties < 1:
        raise ConfigError(f"Expected a share of ties from 0 to below 1, found {ties:g}.")
    if not 0 <= correlation <= 1:
        raise ConfigError(f"Expected a correlation from 0 to 1, found {correlation:g}.")
    if votes_per_rater < 1:
        raise ConfigError(f"Expected at least one vote per rater, found {votes_per_rater}.")
    decided_each = votes_per_rater * (1 - ties)
    effect = 1 + max(decided_each - 1, 0.0) * correlation
    decided = independent_votes(win_rate, power, level)
    raters = max(2, math.ceil(decided * effect / decided_each))
    while raters * decided_each < effect * _t_votes(win_rate, raters, power, level):
        raters += 1
    return Power(win_rate, decided, effect, raters * votes_per_rater, raters)


def _t_votes(win_rate: float, raters: int, power: float, level: float) -> float:
    """As `independent_votes`, with quantiles of t: the variance is estimated from the raters."""
    free = raters - 1
    t_level, t_power = float(stats.t.ppf(1 - level / 2, free)), float(stats.t.ppf(power, free))
    spread = t_level * 0.5 + t_power * math.sqrt(win_rate * (1 - win_rate))
    return (spread / (win_rate - 0.5)) ** 2


def detectable_win_rate(votes: int, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest win rate above one half that independent decided votes detect."""
    low, high = 0.5, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        enough = middle > 0.5 and independent_votes(middle, power, level) <= votes
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ConfigError(f"Expected a {name} between {low:g} and {high:g}, found {value:g}.")
