"""Metrics and intervals, against plain Python and worked-out values."""

import math
from statistics import NormalDist

import pytest
import torch
from PIL import Image
from torch import Tensor

from wuerstchen.errors import DataError, ModelFolderError
from wuerstchen.evaluation.grid import GAP, labelled_grid, to_pil
from wuerstchen.evaluation.metrics import (
    finite,
    fraction_estimate,
    mean_estimate,
    nearest,
    thumbnails,
)
from wuerstchen.psnr import psnr


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def flat(*values: float, side: int = 8) -> Tensor:
    """A grey image for each value."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, side, side).clone()


def test_psnr_of_an_even_error_follows_from_the_decibel() -> None:
    found = psnr(flat(0.6, 0.51, 1.0), flat(0.5, 0.5, 0.0))
    assert found.tolist() == pytest.approx([20, 40, 0], abs=1e-4)


def test_psnr_is_that_of_plain_python_image_by_image(rng: torch.Generator) -> None:
    image, reference = torch.rand(2, 3, 3, 5, 7, generator=rng)
    for k, found in enumerate(psnr(image, reference).tolist()):
        pairs = zip(image[k].flatten().tolist(), reference[k].flatten().tolist(), strict=True)
        errors = [(a - b) ** 2 for a, b in pairs]
        expected = 10 * math.log10(1 / (sum(errors) / len(errors)))
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_perfect_copy_has_100_decibel_and_half_the_noise_6_more(rng: torch.Generator) -> None:
    image = torch.rand(1, 3, 16, 16, generator=rng)
    noise = torch.randn(image.shape, generator=rng) * 0.1
    assert psnr(image, image).item() == 100
    gain = psnr(image + noise / 2, image) - psnr(image + noise, image)
    assert gain.item() == pytest.approx(20 * math.log10(2), abs=1e-3)


def test_the_nearest_of_grey_images_is_the_nearest_grey() -> None:
    found = nearest(flat(0.0, 0.45), flat(0.9, 0.4, 0.1))
    assert found.tolist() == [[2, 1, 0], [1, 2, 0]]


def test_every_image_is_its_own_nearest_also_after_a_little_noise(rng: torch.Generator) -> None:
    references = torch.rand(20, 3, 64, 64, generator=rng)
    noisy = (references + 0.02 * torch.randn(references.shape, generator=rng)).clamp(0, 1)
    assert nearest(noisy, references)[:, 0].tolist() == list(range(20))


def test_the_order_is_that_of_distances_worked_out_one_by_one(rng: torch.Generator) -> None:
    images = torch.rand(3, 3, 32, 32, generator=rng)
    references = torch.rand(9, 3, 32, 32, generator=rng)
    for image, order in zip(images, nearest(images, references).tolist(), strict=True):
        distances = [math.dist(image.flatten(), other.flatten()) for other in references]
        assert order == sorted(range(9), key=lambda i: distances[i])


def test_references_may_be_handed_over_as_thumbnails(rng: torch.Generator) -> None:
    images = torch.rand(3, 3, 96, 96, generator=rng)
    references = torch.rand(7, 3, 128, 128, generator=rng)
    whole = nearest(images, references)
    assert torch.equal(nearest(images, thumbnails(references)), whole)


def test_thumbnails_are_antialiased() -> None:
    board = torch.zeros(1, 3, 128, 128)
    board[..., ::2] = 1  # stripes of one pixel, which a plain subsampling makes black or white
    torch.testing.assert_close(
        thumbnails(board), torch.full((1, 3, 32, 32), 0.5), atol=0.05, rtol=0
    )


def test_the_interval_of_a_mean_holds_the_truth_19_times_in_20(rng: torch.Generator) -> None:
    draws = torch.randn(2000, 50, generator=rng) * 3 + 7
    figures = [mean_estimate(row) for row in draws]
    hits = sum(figure.low <= 7 <= figure.high for figure in figures)
    assert 0.93 < hits / 2000 < 0.965
    assert figures[0].value == pytest.approx(draws[0].mean().item())
    assert figures[0].n == 50


def test_the_interval_of_one_value_is_the_value() -> None:
    figure = mean_estimate(torch.tensor([21.5]))
    assert (figure.value, figure.low, figure.high, figure.n) == (21.5, 21.5, 21.5, 1)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (120, 200), (200, 200), (1, 1)])
def test_wilson_bounds_are_the_fractions_whose_score_test_just_fails(hits: int, n: int) -> None:
    figure = fraction_estimate(hits, n)
    z = NormalDist().inv_cdf(0.975)
    for bound in (figure.low, figure.high):
        assert 0 <= bound <= 1
        distance = abs(hits / n - bound)
        assert distance == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-5)
    assert figure.low <= figure.value == hits / n <= figure.high


def test_wilson_agrees_with_a_published_value() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, table I): 81 of 263 gives 0.2553 to 0.3662
    figure = fraction_estimate(81, 263)
    assert (figure.low, figure.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_a_grid_shows_its_images_untouched_and_row_by_row() -> None:
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    sheet = labelled_grid(images, ["a", "b", "c"], columns=2)
    assert sheet.getpixel((GAP, GAP)) == (255, 0, 0)
    assert sheet.getpixel((GAP + 64 + GAP, GAP)) == (0, 255, 0)
    assert sheet.getpixel((GAP, sheet.height // 2 + GAP)) == (0, 0, 255)
    assert sheet.width == 2 * 64 + 3 * GAP


def test_labels_stand_below_their_images_and_stay_within_them() -> None:
    white = Image.new("RGB", (128, 128), "white")
    label = "a rather long prompt with sesquipedalian and antidisestablishmentarianism in it " * 2
    sheet = labelled_grid([white, white], [label, ""], columns=2)
    left = sheet.crop((GAP, GAP + 128, GAP + 128, sheet.height))
    right = sheet.crop((GAP + 128, 0, sheet.width, sheet.height))
    assert left.getextrema()[0][0] < 100  # ink
    assert right.getextrema()[0][0] == 255  # none


def test_images_survive_the_way_to_eight_bits() -> None:
    image = torch.arange(192).view(3, 8, 8) / 255
    pixels = torch.tensor(list(to_pil(image).tobytes())).view(8, 8, 3).permute(2, 0, 1)
    assert torch.equal(pixels, torch.arange(192).view(3, 8, 8))


def test_copies_of_an_image_in_several_groups_favour_none_of_them() -> None:
    counts = range(20, 60)
    firsts = [int(nearest(flat(0.5), torch.zeros(count, 3, 8, 8))[0, 0]) for count in counts]
    in_second_half = sum(2 * first >= n for n, first in zip(counts, firsts, strict=True))
    assert 8 <= in_second_half <= 32


def test_nothing_is_measured_of_nothing_or_of_what_is_not_finite() -> None:
    with pytest.raises(DataError, match="found none"):
        mean_estimate(torch.zeros(0))
    with pytest.raises(DataError, match="found none"):
        fraction_estimate(0, 0)
    with pytest.raises(ModelFolderError, match="not finite"):
        finite(torch.tensor([0.0, torch.nan]))
