"""Distances of features against closed forms, sums by definition, scipy and torchmetrics."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.frechet import frechet_distance
from wuerstchen.evaluation.distances.inception_score import SPLITS, inception_score
from wuerstchen.evaluation.distances.kid import kid, squared_mmd, subset_size
from wuerstchen.evaluation.distances.manifolds import overlap


def features(n: int, dims: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_three_samples_of_many_features_have_a_distance() -> None:
    """Most eigenvalues of such covariances are 0, on which solvers may fail to converge."""
    rows = torch.zeros(3, 1280)
    rows[0, 0], rows[1, 1] = 1.0, 2.0
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-12)
    # Means differ by 3 in one feature; the covariances are the same.
    moved = rows + torch.eye(1280)[5] * 3
    assert frechet_distance(rows, moved) == pytest.approx(9)


def test_frechet_distance_is_that_of_scipys_square_root_also_of_a_singular_covariance() -> None:
    for n in (40, 5):  # 5 samples in 8 dimensions have a singular covariance
        a, b = features(n, 8), 0.5 * features(30, 8, seed=1) + 1
        cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = scipy.linalg.sqrtm(cov_a @ cov_b).real
        means = np.square(a.mean(dim=0).numpy() - b.mean(dim=0).numpy()).sum()
        expected = means + np.trace(cov_a + cov_b - 2 * root)
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_kid_is_the_sum_of_its_definition_over_pairs() -> None:
    a, b = features(6, 3), features(5, 3, seed=1) + 1

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [
        np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j])
        for s in (a, b)
    ]
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert squared_mmd(a, b) == pytest.approx(sum(within) - 2 * across)


def test_kid_of_equal_distributions_is_zero_within_its_spread_and_may_be_below() -> None:
    values = [kid(features(60, 4, seed=k), features(60, 4, seed=k + 100)) for k in range(9)]
    mean = np.mean([found.value for found in values])
    assert abs(mean) < 3 * np.std([found.value for found in values]) / 9**0.5
    assert min(found.value for found in values) < 0
    assert kid(features(60, 4), features(60, 4, seed=1) + 1).value > 1


def test_kid_has_the_usual_subsets_of_large_sets_and_a_spread_in_small_ones() -> None:
    assert [subset_size(n) for n in (50_000, 2000, 300, 2)] == [1000, 1000, 150, 2]
    assert kid(features(40, 4), features(30, 4, seed=1)).spread > 0  # type: ignore[operator]


def test_overlap_is_that_of_balls_counted_one_by_one() -> None:
    real, drawn = features(30, 2).numpy(), 0.8 * features(20, 2, seed=1).numpy() + 0.3

    def radii(points: np.ndarray, k: int) -> list[float]:
        return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]  # [0] is itself

    def inside(queries: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
        rows = [
            [np.linalg.norm(q - c) <= r for c, r in zip(centres, radii(centres, k), strict=True)]
            for q in queries
        ]
        return np.array(rows)

    found = overlap(torch.from_numpy(real), torch.from_numpy(drawn))
    assert found.precision == pytest.approx(inside(drawn, real, 3).any(axis=1).mean())
    assert found.recall == pytest.approx(inside(real, drawn, 3).any(axis=1).mean())
    assert found.density == pytest.approx(inside(drawn, real, 5).sum() / (5 * 20))
    assert found.coverage == pytest.approx(inside(drawn, real, 5).any(axis=0).mean())


def test_sets_far_apart_share_nothing_and_a_set_with_itself_everything() -> None:
    a = features(50, 3)
    assert overlap(a, a + 100) == (0, 0, 0, 0)
    same = overlap(a, a)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)


def test_inception_score_is_one_without_knowledge_and_the_number_of_classes_at_best() -> None:
    assert inception_score(torch.zeros(100, 7)).value == pytest.approx(1)
    certain = 1000 * torch.eye(5).repeat(2 * SPLITS, 1)  # every split has all classes equally
    found = inception_score(certain)
    assert found.value == pytest.approx(5)
    assert found.spread == pytest.approx(0)


@pytest.mark.slow
def test_torchmetrics_finds_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import _compute_fid
        from torchmetrics.image.inception import InceptionScore
        from torchmetrics.image.kid import poly_mmd

        a, b = features(80, 5), 0.7 * features(80, 5, seed=1) + 0.2
        metric = InceptionScore(torch.nn.Identity(), splits=SPLITS)
        metric.update(a)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            score = float(metric.compute()[0])
            torch.manual_seed(0)
            shuffled = a[torch.randperm(80)]  # the order that it has just used
    distance = _compute_fid(a.mean(dim=0), a.T.cov(), b.mean(dim=0), b.T.cov())
    assert frechet_distance(a, b) == pytest.approx(float(distance))
    assert squared_mmd(a, b) == pytest.approx(float(poly_mmd(a, b)))
    assert inception_score(shuffled).value == pytest.approx(score)


@pytest.mark.parametrize(
    ("figure", "least"), [(frechet_distance, "two"), (kid, "two"), (overlap, "6")]
)
def test_too_few_images_are_an_error_that_says_how_many(figure: object, least: str) -> None:
    with pytest.raises(DataError, match=rf"at least {least} images on each side, found 1 and 9"):
        figure(features(1, 3), features(9, 3))  # type: ignore[operator]
    with pytest.raises(DataError, match="at least one image"):
        inception_score(features(0, 3))
