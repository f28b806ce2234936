"""Frequency bands, the distance of distributions and the linear baseline, against formulas."""

import numpy as np
import pytest
import torch

from wuerstchen.errors import DataError
from wuerstchen.evaluation.denoising import TIMES, linear_baseline
from wuerstchen.evaluation.distances.frechet import frechet_distance
from wuerstchen.evaluation.distribution_distance import compare_semantics
from wuerstchen.evaluation.metrics import BANDS, band_contrasts, band_powers


def test_a_wave_has_its_power_in_the_band_of_its_length() -> None:
    columns = torch.arange(128.0)
    for length, band in ((128, "low"), (32, "middle"), (4, "high")):
        wave = torch.sin(2 * torch.pi * columns / length).expand(1, 3, 128, 128)
        powers = dict(zip(BANDS, band_powers(wave)[0].tolist(), strict=True))
        assert powers.pop(band) == pytest.approx(0.5, abs=1e-6)  # the mean square of any sine
        assert max(powers.values()) < 1e-9


def test_bands_add_up_to_the_mean_square_and_contrast_leaves_brightness_out() -> None:
    image = torch.rand(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    square = image.double().square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(band_powers(image).sum(dim=1), square)
    torch.testing.assert_close(band_contrasts(image + 0.3), band_contrasts(image))


def test_the_distance_of_gaussians_is_that_of_the_formula() -> None:
    """One feature: the square of the difference of means plus that of the unbiased deviations."""
    a = torch.tensor([[-1.0], [1.0]]) * 2 + 5
    b = torch.tensor([[-1.0], [0.0], [1.0]]) * 0.5 + 1
    deviations = 2 * 2**0.5, 0.5  # statistics.stdev of -2, 2 and of -0.5, 0, 0.5
    expected = (5 - 1) ** 2 + (deviations[0] - deviations[1]) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_covariances_are_the_unbiased_ones() -> None:
    """As numpy's: with independent features, traces of roots are sums of deviations."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 3)), 2 * rng.normal(size=(5, 3)) + 1
    root = sqrtm(np.cov(a.T))
    cross = sqrtm(root @ np.cov(b.T) @ root)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T))
    expected -= 2 * np.trace(cross)
    assert frechet_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected)


def sqrtm(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


@pytest.mark.parametrize(("one", "other"), [(1, 5), (5, 1), (1, 1), (0, 4)])
def test_one_image_has_no_distribution(one: int, other: int) -> None:
    sides = torch.zeros(one, 6, 3, 3), torch.zeros(other, 6, 3, 3)
    with pytest.raises(DataError, match=f"at least two images on each side, found {one} and"):
        compare_semantics(*sides, seed=0)
    with pytest.raises(DataError, match="measure more images"):
        frechet_distance(*(side.flatten(1) for side in sides))


def test_the_distance_does_not_depend_on_the_axes() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(50, 6, generator=rng) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=rng))[0]
    assert frechet_distance(a @ turn, 2 * b @ turn) == pytest.approx(
        frechet_distance(a, 2 * b), rel=1e-4
    )
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("count", [8, 200])
def test_sets_of_one_distribution_are_as_far_apart_as_chance_and_others_further(
    count: int,
) -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(count, 6, 3, 3, generator=rng) for _ in range(2))
    assert 0.5 < compare_semantics(a, b, seed=0).over_chance < 2
    assert compare_semantics(a, b + 3, seed=0).over_chance > 3
    assert compare_semantics(a, 2 * b, seed=0).std_ratio == pytest.approx(2, rel=0.15)


def test_no_linear_estimate_of_the_noise_beats_the_baseline() -> None:
    rng = torch.Generator().manual_seed(0)
    data = 0.7 * torch.randn(200_000, generator=rng, dtype=torch.float64)
    noise = torch.randn(200_000, generator=rng, dtype=torch.float64)
    for t, guess in zip(TIMES, linear_baseline(torch.tensor([0.49])), strict=True):
        alpha_bar = float(torch.cos(torch.tensor((t + 0.008) / 1.008 * torch.pi / 2)) ** 2)
        state = alpha_bar**0.5 * data + (1 - alpha_bar) ** 0.5 * noise
        slope = (state @ noise) / (state @ state)
        assert guess == pytest.approx(float((noise - slope * state).square().mean()), abs=0.01)
