"""Statistics of a study against closed forms, published examples and other packages."""

import math

import choix
import numpy as np
import pytest
from scipy import optimize, stats
from simulated import rates_of_raters, votes_of_raters

from wuerstchen.errors import ConfigError, DataError
from wuerstchen.study.agreement import (
    cohen_kappa,
    interval_distances,
    krippendorff_alpha,
    value_counts,
)
from wuerstchen.study.power import detectable_win_rate, independent_votes, votes_needed
from wuerstchen.study.proportions import holm, sign_test, wilson, win_rate
from wuerstchen.study.strengths import counts, estimate_strengths, fit


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize(("wins", "n"), [(0, 4), (7, 10), (50, 100), (931, 1000), (12, 12)])
def test_wilson_intervals_are_those_of_scipy(wins: int, n: int) -> None:
    expected = stats.binomtest(wins, n).proportion_ci(0.95, method="wilson")
    assert wilson(wins / n, n) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (9, 1), (3, 14), (60, 40)])
def test_the_sign_test_sums_the_binomial_tails(wins: int, losses: int) -> None:
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(max(wins, losses), n + 1)) / 2**n
    assert sign_test(wins, losses) == pytest.approx(min(1.0, 2 * tail))


def test_a_rater_who_gives_each_vote_ten_times_has_one_vote() -> None:
    """With one vote per rater the effect is G / (G - 1); with ten equal votes ten times that."""
    outcomes = np.array([1, 1, 1, -1, -1, 1, 1, -1])
    raters = np.arange(8)
    single = win_rate(outcomes, raters)
    tenfold = win_rate(np.repeat(outcomes, 10), np.repeat(raters, 10))
    assert single.design_effect == pytest.approx(8 / 7)
    assert tenfold.design_effect == pytest.approx(80 / 7)
    assert single.clustered == pytest.approx(tenfold.clustered)
    assert tenfold.wilson[0] > single.wilson[0]


def test_ties_are_left_out_of_the_rate_or_count_half() -> None:
    found = win_rate(np.array([1, 1, 1, -1, 0, 0, 0, 0]), np.arange(8) % 2)
    assert (found.wins, found.losses, found.ties) == (3, 1, 4)
    assert found.rate == 0.75
    assert found.rate_with_ties == 0.625


def test_only_ties_have_no_rate_and_no_significance() -> None:
    found = win_rate(np.zeros(6, dtype=np.int64), np.arange(6))
    assert math.isnan(found.rate)
    assert found.p == 1
    assert found.wilson == (0, 1)


def test_holm_adjusts_as_in_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_strengths_without_ties_are_those_of_choix(rng: np.random.Generator) -> None:
    truth = np.array([0.9, 0.2, -0.3, -0.8])
    wins, ties = votes_of_raters(truth, 0.0, 10, 40, rng)
    table = wins.sum(0).astype(int)
    pairs = [(i, j) for i in range(4) for j in range(4) for _ in range(table[i, j])]
    expected = choix.opt_pairwise(4, pairs, alpha=0.0, tol=1e-12)
    found = estimate_strengths(wins, ties, replicates=20)
    assert found.values == pytest.approx(expected - expected.mean(), abs=1e-6)
    assert found.nu == 0


def test_strengths_with_ties_maximise_the_likelihood_of_davidson(rng: np.random.Generator) -> None:
    wins, ties = votes_of_raters(np.array([0.6, 0.0, -0.6]), 0.8, 8, 50, rng)
    won, tied = wins.sum(0), ties.sum(0)

    def loss(free: np.ndarray) -> float:
        s, nu = np.array([free[0], free[1], -free[0] - free[1]]), math.exp(free[2])
        total = 0.0
        for i in range(3):
            for j in range(i):
                both = math.exp((s[i] + s[j]) / 2)
                whole = math.exp(s[i]) + math.exp(s[j]) + nu * both
                total -= won[i, j] * math.log(math.exp(s[i]) / whole)
                total -= won[j, i] * math.log(math.exp(s[j]) / whole)
                total -= tied[i, j] * math.log(nu * both / whole)
        return total

    best = optimize.minimize(loss, np.zeros(3), method="BFGS", tol=1e-10).x
    found = estimate_strengths(wins, ties, replicates=20)
    assert found.values == pytest.approx([best[0], best[1], -best[0] - best[1]], abs=1e-5)
    assert found.nu == pytest.approx(math.exp(best[2]), abs=1e-5)


def test_two_systems_have_the_logit_of_their_win_rate() -> None:
    wins = np.array([[[0.0, 30], [10, 0]]])
    found = estimate_strengths(wins, np.zeros_like(wins))
    assert found.values[0] - found.values[1] == pytest.approx(math.log(3))
    assert found.intervals is None  # one rater says nothing about others


def test_a_system_that_never_lost_has_no_strength() -> None:
    wins = np.array([[[0.0, 5], [0, 0]]])
    with pytest.raises(DataError, match="never lost"):
        estimate_strengths(wins, np.zeros_like(wins))
    values, _ = fit(wins, np.zeros_like(wins))
    assert np.isnan(values).all()


def test_known_raters_are_found_again(rng: np.random.Generator) -> None:
    truth = np.array([1.0, 0.3, -0.2, -1.1])
    found = estimate_strengths(*votes_of_raters(truth, 0.5, 60, 60, rng), replicates=300)
    assert found.intervals is not None
    for value, (low, high) in zip(truth, found.intervals, strict=True):
        assert low < value < high
        assert high - low < 0.4
    assert found.nu == pytest.approx(0.5, abs=0.08)


def strength_coverage(simulations: int, replicates: int) -> float:
    rng, truth = np.random.default_rng(11), np.array([0.7, 0.1, -0.8])
    inside = []
    for _ in range(simulations):
        wins, ties = votes_of_raters(truth, 0.4, 25, 30, rng)
        found = estimate_strengths(wins, ties, 3, replicates).intervals
        assert found is not None
        inside += [low <= v <= high for v, (low, high) in zip(truth, found, strict=True)]
    return float(np.mean(inside))


def rate_coverage(simulations: int, spread: float) -> float:
    """Of the clustered interval, with raters who differ from each other."""
    rng, raters, votes, mean = np.random.default_rng(12), 25, 40, 0.62
    inside = []
    for _ in range(simulations):
        rates = np.repeat(rates_of_raters(mean, spread, raters, rng), votes)
        outcomes = np.where(rng.random(len(rates)) < rates, 1, -1)
        found = win_rate(outcomes, np.repeat(np.arange(raters), votes)).clustered
        assert found is not None
        inside.append(found.low <= mean <= found.high)
    return float(np.mean(inside))


def test_a_sample_of_simulations_is_covered() -> None:
    """100 simulations; the slow test below has the limits that count."""
    assert 0.88 <= strength_coverage(40, 200) <= 1
    assert 0.88 <= rate_coverage(100, 0.1) <= 1


@pytest.mark.slow
def test_intervals_cover_the_truth_in_93_to_97_percent_of_500_simulations() -> None:
    assert 0.93 <= strength_coverage(500, 500) <= 0.97
    assert 0.93 <= rate_coverage(500, 0.0) <= 0.97
    assert 0.93 <= rate_coverage(500, 0.1) <= 0.97


PUBLISHED = """1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""
"""Four observers, twelve units, example C of Krippendorff 2011: alpha is 0.743, and 0.849 on the
interval scale."""


def test_alpha_is_that_of_the_published_example() -> None:
    rows = [line.split() for line in PUBLISHED.splitlines()]
    rated = [(unit, int(v) - 1) for row in rows for unit, v in enumerate(row) if v != "."]
    units, values = map(np.array, zip(*rated, strict=True))
    counted = value_counts(units, values, 5)
    assert krippendorff_alpha(counted) == pytest.approx(0.743, abs=5e-4)
    distances = interval_distances(range(5))
    assert krippendorff_alpha(counted, distances) == pytest.approx(0.849, abs=5e-4)


def test_alpha_is_one_for_agreement_and_near_zero_for_chance(rng: np.random.Generator) -> None:
    assert krippendorff_alpha(np.array([[3, 0, 0], [0, 4, 0], [0, 0, 2]])) == 1
    chance = rng.multinomial(4, [0.5, 0.3, 0.2], size=4000)
    assert krippendorff_alpha(chance) == pytest.approx(0, abs=0.02)
    assert math.isnan(krippendorff_alpha(np.array([[1, 0, 0], [0, 1, 0]])))  # each rated once


def test_kappa_is_that_of_the_common_example() -> None:
    """50 proposals: 20 yes by both, 15 no by both, 5 and 10 mixed; kappa is 0.4."""
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(first, second, 3) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa(first[:0], second[:0], 3))


@pytest.mark.parametrize(("rate", "votes"), [(0.6, 194), (0.55, 783), (0.52, 4904), (0.4, 194)])
def test_votes_of_known_win_rates(rate: float, votes: int) -> None:
    """The figures of tables of sample sizes, and the power of the exact test near 80 %."""
    assert independent_votes(rate) == votes
    critical = stats.binom.ppf(0.025, votes, 0.5) - 1  # the largest number with p below 0.05
    reached = stats.binom.cdf(critical, votes, min(rate, 1 - rate))
    assert reached == pytest.approx(0.8, abs=0.04)


def test_clusters_and_ties_need_more_raters() -> None:
    alone = votes_needed(0.52, ties=0, votes_per_rater=1, correlation=0.5)
    assert alone.design_effect == 1
    assert alone.raters == alone.votes == pytest.approx(4904, rel=1e-3)  # t is normal there
    assert votes_needed(0.52, ties=0, votes_per_rater=51, correlation=0.02).design_effect == 2
    many = votes_needed(0.52, ties=0, votes_per_rater=11, correlation=0.1)
    assert many.votes == pytest.approx(2 * 4904, rel=0.01)
    tied = votes_needed(0.52, ties=0.5, votes_per_rater=22, correlation=0.1)
    assert tied.raters == many.raters


def test_the_stated_votes_have_the_stated_power(rng: np.random.Generator) -> None:
    """With raters who differ, the clustered test finds the win rate in about 80 % of studies."""
    plan = votes_needed(0.62, ties=0, votes_per_rater=20, correlation=0.05)
    hits = []
    for _ in range(400):
        rates = np.repeat(rates_of_raters(0.62, 0.05, plan.raters, rng), 20)
        outcomes = np.where(rng.random(len(rates)) < rates, 1, -1)
        p = win_rate(outcomes, np.repeat(np.arange(plan.raters), 20)).p_clustered
        assert p is not None
        hits.append(p < 0.05)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.06)


def test_the_detectable_win_rate_inverts_the_number_of_votes() -> None:
    assert detectable_win_rate(783) == pytest.approx(0.55, abs=1e-4)
    assert detectable_win_rate(194) == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"win_rate": 0.5}, "other than 0.5"),
        ({"win_rate": 1.5}, "between 0 and 1"),
        ({"win_rate": 0.6, "ties": 1.0}, "ties"),
        ({"win_rate": 0.6, "correlation": -1}, "correlation"),
        ({"win_rate": 0.6, "votes_per_rater": 0}, "one vote"),
        ({"win_rate": 0.6, "power": 0.01}, "power"),
    ],
)
def test_impossible_plans_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        votes_needed(**options)  # type: ignore[arg-type]


def test_counts_are_by_rater_and_ties_are_symmetric() -> None:
    a, b = np.array([0, 1, 0, 2]), np.array([1, 0, 2, 1])
    wins, ties = counts(a, b, np.array([1, 1, 0, -1]), np.array([0, 0, 1, 1]), 3)
    assert wins[0].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert wins[1].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert ties[1].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
