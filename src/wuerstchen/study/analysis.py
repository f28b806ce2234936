"""From votes to figures: win rates, strengths, agreement, and which raters are left out."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from wuerstchen.errors import DataError
from wuerstchen.study import strengths as models
from wuerstchen.study.agreement import cohen_kappa, krippendorff_alpha, value_counts
from wuerstchen.study.proportions import Ints, WinRate, holm, win_rate
from wuerstchen.study.strengths import Strengths
from wuerstchen.study.votes import Vote

MIN_CATCH = 0.8
"""Least share of catch pairs that a rater must get right."""


@dataclass(frozen=True, slots=True)
class Rater:
    """What one rater did."""

    name: str
    votes: int
    """Comparisons, without repeats and catch pairs."""
    catch_right: int
    catch_seen: int
    repeats_same: int
    repeats_seen: int
    kept: bool
    """Whether the votes count: enough catch pairs right, or none seen."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems, on all prompts or on those of a category."""

    a: str
    b: str
    category: str
    """Empty for all prompts."""
    result: WinRate
    p_adjusted: float | None
    """`p_clustered`, or `p` for a single rater, adjusted by Holm's method: for all pairs of
    systems, or within the categories for all their pairs. None without decided votes."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The figures of a study."""

    systems: tuple[str, ...]
    raters: tuple[Rater, ...]
    votes: int
    """Comparisons that count."""
    comparisons: tuple[Comparison, ...]
    categories: tuple[Comparison, ...]
    strengths: Strengths | None
    no_strengths: str
    """Why there are none; empty if there are."""
    alpha: float
    """Krippendorff's alpha of the votes on items that several raters saw; NaN without any."""
    items_shared: int
    """Such items."""
    kappa: float
    """Cohen's kappa of votes and their repeats, of all raters together; NaN without repeats."""
    repeats: int


def analyse(
    votes: Sequence[Vote], *, min_catch: float = MIN_CATCH, seed: int = 0, replicates: int = 1000
) -> Analysis:
    """Analyse votes.

    min_catch   raters who get a smaller share of their catch pairs right are left out
    seed        of the bootstrap
    replicates  of the bootstrap

    Raises DataError if no vote is left.
    """
    turned = [vote.turned() for vote in votes]
    raters = _raters(turned, min_catch)
    kept = {rater.name for rater in raters if rater.kept}
    valid = [vote for vote in turned if vote.kind == "comparison" and vote.rater in kept]
    if not valid:
        raise DataError(
            f"Expected a rater with at least {min_catch:.0%} of the catch pairs right, found none "
            f"among {len(raters)}; look at the raters, or lower the share."
        )
    systems = sorted({name for vote in valid for name in (vote.a, vote.b)})
    strengths, reason = _strengths(valid, systems, seed, replicates)
    shared = Counter(vote.item for vote in valid)
    first, second = _repeated(turned, kept)
    return Analysis(
        systems=tuple(systems),
        raters=tuple(raters),
        votes=len(valid),
        comparisons=_compare(valid, [""]),
        categories=_compare(valid, sorted({vote.category for vote in valid} - {""})),
        strengths=strengths,
        no_strengths=reason,
        alpha=_alpha(valid),
        items_shared=sum(count > 1 for count in shared.values()),
        kappa=cohen_kappa(first, second, 3),
        repeats=len(first),
    )


def _raters(votes: Sequence[Vote], min_catch: float) -> list[Rater]:
    names = sorted({vote.rater for vote in votes})
    originals = _originals(votes)
    found = {name: Counter[str]() for name in names}
    for vote in votes:
        count = found[vote.rater]
        count[vote.kind] += 1
        if vote.kind == "catch":
            count["right"] += vote.choice == "a"
        elif vote.kind == "repeat" and (vote.rater, vote.item) in originals:
            count["pairs"] += 1
            count["same"] += originals[vote.rater, vote.item].choice == vote.choice
    return [
        Rater(
            name=name,
            votes=count["comparison"],
            catch_right=count["right"],
            catch_seen=count["catch"],
            repeats_same=count["same"],
            repeats_seen=count["pairs"],
            kept=count["right"] >= min_catch * count["catch"],
        )
        for name, count in found.items()
    ]


def _originals(votes: Sequence[Vote]) -> dict[tuple[str, str], Vote]:
    return {(vote.rater, vote.item): vote for vote in votes if vote.kind == "comparison"}


def _repeated(votes: Sequence[Vote], kept: set[str]) -> tuple[Ints, Ints]:
    """Outcomes as 0, 1 or 2 of votes and of their repeats."""
    originals = _originals(votes)
    pairs = [
        (originals[vote.rater, vote.item].outcome + 1, vote.outcome + 1)
        for vote in votes
        if vote.kind == "repeat" and vote.rater in kept and (vote.rater, vote.item) in originals
    ]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _codes(names: Sequence[str]) -> Ints:
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def _alpha(votes: Sequence[Vote]) -> float:
    items = _codes([vote.item for vote in votes])
    outcomes = np.array([vote.outcome + 1 for vote in votes])
    return krippendorff_alpha(value_counts(items, outcomes, 3))


def _compare(votes: Sequence[Vote], categories: Sequence[str]) -> tuple[Comparison, ...]:
    systems = sorted({name for vote in votes for name in (vote.a, vote.b)})
    found = []
    for category in categories:
        for a, b in combinations(systems, 2):
            chosen = [
                vote
                for vote in votes
                if (vote.a, vote.b) == (a, b) and category in ("", vote.category)
            ]
            if chosen:
                outcomes = np.array([vote.outcome for vote in chosen])
                found.append(
                    (a, b, category, win_rate(outcomes, _codes([v.rater for v in chosen])))
                )
    values = [
        math.nan
        if not result.wins + result.losses
        else result.p
        if result.p_clustered is None
        else result.p_clustered
        for *_, result in found
    ]
    tested = [index for index, value in enumerate(values) if not math.isnan(value)]
    adjusted = dict(zip(tested, holm([values[index] for index in tested]), strict=True))
    return tuple(
        Comparison(*each, p_adjusted=adjusted.get(index)) for index, each in enumerate(found)
    )


def _strengths(
    votes: Sequence[Vote], systems: Sequence[str], seed: int, replicates: int
) -> tuple[Strengths | None, str]:
    index = {name: number for number, name in enumerate(systems)}
    wins, ties = models.counts(
        np.array([index[vote.a] for vote in votes]),
        np.array([index[vote.b] for vote in votes]),
        np.array([vote.outcome for vote in votes]),
        _codes([vote.rater for vote in votes]),
        len(systems),
    )
    try:
        return models.estimate_strengths(wins, ties, seed, replicates), ""
    except DataError as error:
        return None, str(error)
