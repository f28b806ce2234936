"""Laws of the schedule, of noising, of loss weights and of training times."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm_wuerstchen import DDPMWuerstchenScheduler

from wuerstchen import diffusion
from wuerstchen.diffusion import alpha_bar

SHAPE = (4, 3, 8, 8)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_alpha_bar_is_the_clamped_cosine_of_diffusers() -> None:
    t = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(
        alpha_bar(t), DDPMWuerstchenScheduler()._alpha_cumprod(t, t.device), atol=1e-6, rtol=1e-5
    )


def test_alpha_bar_falls_from_most_to_least_and_never_rises() -> None:
    a_bar = alpha_bar(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert a_bar[0] == diffusion.MOST == 0.9999
    assert a_bar[-1] == diffusion.LEAST == 0.0001
    assert (a_bar.diff() <= 0).all()
    assert (a_bar[20:990].diff() < 0).all()


def test_alpha_bar_at_one_half_is_the_value_of_the_formula() -> None:
    # cos^2(0.508/1.008 * 90 deg) / cos^2(0.008/1.008 * 90 deg), worked out by hand
    assert diffusion.alpha_bar_at(0.5) == pytest.approx(0.493845, abs=1e-5)


def test_alpha_bar_at_agrees_with_alpha_bar_for_every_time_of_the_default_lists() -> None:
    for t in diffusion.uniform_times(12) + diffusion.published_times():
        assert diffusion.alpha_bar_at(t) == pytest.approx(
            alpha_bar(torch.tensor(t)).item(), abs=1e-6
        )


def test_add_noise_equals_the_scheduler_of_diffusers(rng: torch.Generator) -> None:
    data = torch.randn(SHAPE, generator=rng)
    noise = torch.randn(SHAPE, generator=rng)
    t = torch.tensor([0.0, 0.3, 0.9, 1.0])
    theirs = DDPMWuerstchenScheduler().add_noise(data, noise, t)
    torch.testing.assert_close(diffusion.add_noise(data, noise, t), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.99, 1.0])
def test_noised_unit_data_keeps_unit_variance(t: float, rng: torch.Generator) -> None:
    data = torch.randn(2, 1, 300, 300, generator=rng)
    noise = torch.randn(2, 1, 300, 300, generator=rng)
    noisy = diffusion.add_noise(data, noise, torch.full((2,), t))
    assert noisy.var().item() == pytest.approx(1, abs=0.02)  # standard error 0.0033


def test_every_image_of_a_batch_is_noised_at_its_own_time(rng: torch.Generator) -> None:
    data, noise = torch.randn(2, 4, 3, 3, 3, generator=rng)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0])
    together = diffusion.add_noise(data, noise, t)
    for k in range(4):
        alone = diffusion.add_noise(data[k : k + 1], noise[k : k + 1], t[k : k + 1])
        assert torch.equal(together[k : k + 1], alone)


def test_p2_weight_is_one_over_one_plus_the_signal_to_noise_ratio() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    ratio = alpha_bar(t) / (1 - alpha_bar(t))
    torch.testing.assert_close(diffusion.p2_weight(t), 1 / (1 + ratio))
    torch.testing.assert_close(diffusion.p2_weight(t), 1 - alpha_bar(t))


def test_the_data_weight_turns_error_of_noise_into_error_of_data(rng: torch.Generator) -> None:
    data, noise = torch.randn(4, 3, 5, 5, generator=rng), torch.randn(4, 3, 5, 5, generator=rng)
    t = torch.tensor([0.1, 0.3, 0.5, 0.7])  # below the cap
    wrong = noise + 0.1 * torch.randn(4, 3, 5, 5, generator=rng)
    noisy = diffusion.add_noise(data, noise, t)
    a_bar = diffusion.alpha_bar(t).view(-1, 1, 1, 1)
    implied = (noisy - (1 - a_bar).sqrt() * wrong) / a_bar.sqrt()
    of_noise = (wrong - noise).square().mean(dim=(1, 2, 3))
    of_data = (implied - data).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(diffusion.data_weight(t) * of_noise, of_data)


def test_the_data_weight_is_at_most_ten_times_p2() -> None:
    t = torch.tensor([0.85, 0.95, 1.0])
    torch.testing.assert_close(diffusion.data_weight(t), 10 * diffusion.p2_weight(t))


def test_training_times_fill_their_range_and_accumulate_at_one(rng: torch.Generator) -> None:
    times = diffusion.training_times(torch.rand(400_000, generator=rng))
    assert times.min() >= 0.001 and times.max() == 1
    # 1.08 u + 0.001 >= 1 for u above 0.925: 7.5 %, standard error 0.04 %
    assert (times == 1).float().mean().item() == pytest.approx(0.075, abs=0.002)
    below = times[times < 1]
    assert below.mean().item() == pytest.approx((0.001 + 1) / 2, abs=0.003)  # uniform below 1


def test_training_times_of_extreme_samples_are_legal() -> None:
    almost_one = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    times = diffusion.training_times(torch.stack([torch.tensor(0.0), almost_one]))
    assert times[0] == 1
    assert times[1] >= torch.tensor(0.001)


@pytest.mark.parametrize("late", [0.2, 0.445, 0.85])
def test_late_times_have_their_fraction_and_are_distributed_as_published(
    late: float, rng: torch.Generator
) -> None:
    uniform = torch.rand(400_000, generator=rng)
    times, published = diffusion.training_times(uniform, late), diffusion.training_times(uniform)
    assert times.min() >= 0.001 and times.max() == 1
    assert (times > diffusion.HIGH_NOISE_TIME).float().mean().item() == pytest.approx(
        late, abs=0.004
    )
    for side in (torch.gt, torch.le):  # the same distribution on either side of HIGH_NOISE_TIME
        drawn, expected = times[side(times, 0.6)], published[side(published, 0.6)]
        for fraction in (0.1, 0.5, 0.9):
            there = expected.quantile(fraction).item()
            assert drawn.quantile(fraction).item() == pytest.approx(there, abs=0.005)


@pytest.mark.parametrize("t", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_log_snr_is_the_logarithm_of_alpha_bar_over_the_rest(t: float) -> None:
    a_bar = alpha_bar(torch.tensor(t, dtype=torch.float64))
    expected = (a_bar / (1 - a_bar)).log().item()
    assert diffusion.log_snr_at(t) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.003, 0.1, 0.5, 0.8, 0.993, 1.0])
def test_the_time_of_a_log_snr_is_where_it_was_found(t: float) -> None:
    assert diffusion.time_of(diffusion.log_snr_at(t)) == pytest.approx(t, abs=1e-12)


def test_log_snr_beyond_the_clamp_belongs_to_the_ends() -> None:
    assert diffusion.log_snr_at(1) == pytest.approx(-9.21024, abs=1e-5)
    assert diffusion.log_snr_at(0) == pytest.approx(9.21024, abs=1e-5)
    assert [diffusion.time_of(ratio) for ratio in (-1000.0, -9.3, 9.3, 1000.0)] == [1, 1, 0, 0]
    # the clamp holds from 0.99358 up: these times cannot be told apart by their alpha_bar
    assert diffusion.time_of(diffusion.log_snr_at(0.995)) == 1
