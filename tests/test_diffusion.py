"""Laws of the mathematics. Gaussian data is the oracle: its best denoiser has a closed form."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm_wuerstchen import DDPMWuerstchenScheduler
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.diffusion import Denoiser, Sampler, signal

MEAN, SPREAD = 0.7, 0.5
"""Of the Gaussian data, chosen so that neither its mean nor its spread is that of the noise."""

SHAPE = (4, 3, 8, 8)
TIME_LISTS = {
    "uniform": diffusion.uniform_times(12),
    "published": diffusion.published_times(),
}


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(x: Tensor) -> Tensor:
    return torch.randn_like(x)


def exact_noise(x: Tensor, t: float) -> Tensor:
    """E[noise | x] for data from N(MEAN, SPREAD^2), by the conditioning formula of Gaussians."""
    share = diffusion.signal_at(t)
    covariance, variance = (1 - share) ** 0.5, share * SPREAD**2 + (1 - share)
    return covariance / variance * (x - share**0.5 * MEAN)


def last(states: Iterator[Tensor]) -> Tensor:
    *_, state = states
    return state


# ── schedule and noising ──


def test_signal_is_the_clamped_cosine_of_diffusers() -> None:
    t = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(
        signal(t), DDPMWuerstchenScheduler()._alpha_cumprod(t, t.device), atol=1e-6, rtol=1e-5
    )


def test_signal_falls_from_most_to_least_and_never_rises() -> None:
    shares = signal(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert shares[0] == diffusion.MOST == 0.9999
    assert shares[-1] == diffusion.LEAST == 0.0001
    assert (shares.diff() <= 0).all()
    assert (shares[20:990].diff() < 0).all()


def test_signal_at_one_half_is_the_value_of_the_formula() -> None:
    # cos^2(0.508/1.008 * 90 deg) / cos^2(0.008/1.008 * 90 deg), worked out by hand
    assert diffusion.signal_at(0.5) == pytest.approx(0.493845, abs=1e-5)


def test_signal_at_agrees_with_signal_for_every_time_of_the_default_lists() -> None:
    for t in TIME_LISTS["uniform"] + TIME_LISTS["published"]:
        assert diffusion.signal_at(t) == pytest.approx(signal(torch.tensor(t)).item(), abs=1e-6)


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


def test_every_picture_of_a_batch_is_noised_at_its_own_time(rng: torch.Generator) -> None:
    data, noise = torch.randn(2, 4, 3, 3, 3, generator=rng)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0])
    together = diffusion.add_noise(data, noise, t)
    for k in range(4):
        alone = diffusion.add_noise(data[k : k + 1], noise[k : k + 1], t[k : k + 1])
        assert torch.equal(together[k : k + 1], alone)


def test_p2_weight_is_one_over_one_plus_the_signal_to_noise_ratio() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    ratio = signal(t) / (1 - signal(t))
    torch.testing.assert_close(diffusion.p2_weight(t), 1 / (1 + ratio))
    torch.testing.assert_close(diffusion.p2_weight(t), 1 - signal(t))


# ── times ──


def test_training_times_fill_their_range_and_gather_at_one(rng: torch.Generator) -> None:
    times = diffusion.training_times(torch.rand(400_000, generator=rng))
    assert times.min() >= 0.001 and times.max() == 1
    # 1.08 u + 0.001 >= 1 for u above 0.925: 7.5 %, standard error 0.04 %
    assert (times == 1).float().mean().item() == pytest.approx(0.075, abs=0.002)
    below = times[times < 1]
    assert below.mean().item() == pytest.approx((0.001 + 1) / 2, abs=0.003)  # uniform below 1


def test_training_times_of_the_extreme_draws_are_legal() -> None:
    almost_one = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    times = diffusion.training_times(torch.stack([torch.tensor(0.0), almost_one]))
    assert times[0] == 1
    assert times[1] >= torch.tensor(0.001)


@pytest.mark.parametrize("late", [0.2, 0.445, 0.85])
def test_late_times_have_their_share_and_lie_on_both_sides_as_published(
    late: float, rng: torch.Generator
) -> None:
    uniform = torch.rand(400_000, generator=rng)
    times, published = diffusion.training_times(uniform, late), diffusion.training_times(uniform)
    assert times.min() >= 0.001 and times.max() == 1
    assert (times > diffusion.LATE).float().mean().item() == pytest.approx(late, abs=0.004)
    for side in (torch.gt, torch.le):  # the same distribution on either side of LATE
        drawn, expected = times[side(times, 0.6)], published[side(published, 0.6)]
        for share in (0.1, 0.5, 0.9):
            there = expected.quantile(share).item()
            assert drawn.quantile(share).item() == pytest.approx(there, abs=0.005)


def test_uniform_times_fall_evenly_from_one_to_zero() -> None:
    assert diffusion.uniform_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_published_times_are_20_dense_and_10_coarse_values_for_29_evaluations() -> None:
    times = diffusion.published_times()
    calls: list[float] = []

    def counting(x: Tensor, t: float) -> Tensor:
        calls.append(t)
        return x

    last(diffusion.ddpm(counting, torch.zeros(1), times, normal))
    assert len(times) == 30 and len(calls) == 29
    assert times[0] == 1 and times[19] == pytest.approx(2 / 3)
    assert times[20] == pytest.approx(0.6) and times[29] == 0
    assert [a - b for a, b in pairwise(times[:20])] == pytest.approx([1 / 57] * 19)
    assert [a - b for a, b in pairwise(times[20:])] == pytest.approx([1 / 15] * 9)


# ── guidance ──


def labelled(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """A network whose answer shows which picture, time and condition it was given."""
    return x * condition.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1)


def test_guidance_walks_the_line_from_unwanted_to_wanted(rng: torch.Generator) -> None:
    x = torch.randn(SHAPE, generator=rng)
    wanted, unwanted = torch.rand(2, 4, generator=rng)
    condition = torch.cat([wanted, unwanted])
    t = torch.full((4,), 0.3)
    plus, minus = labelled(x, t, wanted), labelled(x, t, unwanted)
    for scale in (0.0, 1.0, 4.0, -0.5):
        found = diffusion.guided(labelled, condition, scale)(x, 0.3)
        torch.testing.assert_close(found, minus + scale * (plus - minus))


def test_guidance_one_is_the_network_without_guidance(rng: torch.Generator) -> None:
    x, wanted = torch.randn(SHAPE, generator=rng), torch.rand(4, generator=rng)
    plain = diffusion.unguided(labelled, wanted)(x, 0.6)
    guided = diffusion.guided(labelled, torch.cat([wanted, torch.zeros(4)]), 1.0)(x, 0.6)
    torch.testing.assert_close(guided, plain)


# ── samplers ──


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS.values(), ids=diffusion.SAMPLERS)
@pytest.mark.parametrize("times", TIME_LISTS.values(), ids=TIME_LISTS)
def test_a_perfect_denoiser_brings_back_the_data(
    sampler: Sampler, times: Sequence[float], rng: torch.Generator
) -> None:
    data = torch.randn(SHAPE, generator=rng)

    def oracle(x: Tensor, t: float) -> Tensor:  # the noise that is truly in x
        share = diffusion.signal_at(t)
        return (x - share**0.5 * data) / (1 - share) ** 0.5

    start = torch.randn(SHAPE, generator=rng)
    # ddpm ends at signal 0.9999, whose root keeps 1 - 0.00005 of the data
    torch.testing.assert_close(last(sampler(oracle, start, times, normal)), data, atol=0.02, rtol=0)


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS.values(), ids=diffusion.SAMPLERS)
def test_the_exact_denoiser_of_a_gaussian_samples_that_gaussian(
    sampler: Sampler, rng: torch.Generator
) -> None:
    start = torch.randn(100_000, generator=rng)
    torch.manual_seed(1)
    found = last(sampler(exact_noise, start, diffusion.uniform_times(400), normal))
    assert found.mean().item() == pytest.approx(MEAN, abs=0.01)  # standard error 0.0016
    assert found.var().item() == pytest.approx(SPREAD**2, rel=0.02)  # standard error 0.0045


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS.values(), ids=diffusion.SAMPLERS)
def test_states_on_the_way_have_the_variance_of_their_time(
    sampler: Sampler, rng: torch.Generator
) -> None:
    times = diffusion.uniform_times(400)
    torch.manual_seed(2)
    start = torch.randn(50_000, generator=rng)
    states = sampler(exact_noise, start, times, normal)
    for s, state in zip(times[1:], states, strict=True):
        if s in (0.75, 0.5, 0.25):
            share = diffusion.signal_at(s)
            assert state.mean().item() == pytest.approx(share**0.5 * MEAN, abs=0.02)
            expected = share * SPREAD**2 + 1 - share
            assert state.var().item() == pytest.approx(expected, rel=0.03)


def test_ddim_converges_to_the_probability_flow_with_order_one(rng: torch.Generator) -> None:
    start = torch.randn(1000, generator=rng, dtype=torch.float64)
    share = diffusion.signal_at(1)
    # On the flow of Gaussian data every point keeps its standard score.
    score = (start - share**0.5 * MEAN) / (share * SPREAD**2 + 1 - share) ** 0.5
    exact = MEAN + SPREAD * score
    errors = []
    for steps in (32, 64, 128):
        found = last(diffusion.ddim(exact_noise, start, diffusion.uniform_times(steps), normal))
        errors.append((found - exact).square().mean().sqrt().item())
    for coarse, fine in pairwise(errors):
        assert 1.7 < coarse / fine < 2.4, errors


def test_ddim_draws_no_noise(rng: torch.Generator) -> None:
    def forbidden(x: Tensor) -> Tensor:
        raise AssertionError("ddim drew noise")

    last(diffusion.ddim(exact_noise, torch.randn(5), diffusion.uniform_times(3), forbidden))


def test_ddpm_draws_once_a_step_and_adds_nothing_at_the_last() -> None:
    def huge(x: Tensor) -> Tensor:
        nonlocal drawn
        drawn += 1
        return torch.full_like(x, 1e6) if drawn == 3 else torch.zeros_like(x)

    drawn = 0
    found = last(diffusion.ddpm(exact_noise, torch.randn(5), diffusion.uniform_times(3), huge))
    assert drawn == 3
    assert found.abs().max() < 100


@pytest.mark.parametrize("times", TIME_LISTS.values(), ids=TIME_LISTS)
@pytest.mark.parametrize("denoise", [exact_noise, lambda x, t: x.tanh() * t], ids=["exact", "odd"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 5e-5)])
def test_ddpm_equals_the_scheduler_of_diffusers_at_every_state(
    times: Sequence[float], denoise: Denoiser, dtype: torch.dtype, tolerance: float
) -> None:
    # Near t = 1 their schedule loses digits in fp32, as the comparison in fp64 shows.
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=dtype)
    ours_rng, theirs_rng = (torch.Generator().manual_seed(4) for _ in range(2))
    ours = diffusion.ddpm(
        denoise, start, times, lambda x: torch.randn(x.shape, generator=ours_rng, dtype=dtype)
    )
    scheduler = DDPMWuerstchenScheduler()
    scheduler.set_timesteps(timesteps=torch.tensor(times, dtype=dtype))
    theirs = start
    for t, mine in zip(scheduler.timesteps[:-1], ours, strict=True):
        batch_t = t.expand(len(start))
        noise = denoise(theirs, float(t))
        theirs = scheduler.step(noise, batch_t, theirs, generator=theirs_rng).prev_sample
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)
    assert torch.equal(ours_rng.get_state(), theirs_rng.get_state())  # the streams stay in step


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS.values(), ids=diffusion.SAMPLERS)
def test_whoever_stops_early_pays_for_no_further_evaluation(sampler: Sampler) -> None:
    calls: list[float] = []

    def counting(x: Tensor, t: float) -> Tensor:
        calls.append(t)
        return exact_noise(x, t)

    states = sampler(counting, torch.randn(3), diffusion.uniform_times(10), normal)
    assert calls == []
    next(states)
    next(states)
    states.close()  # type: ignore[attr-defined]
    assert calls == pytest.approx([1.0, 0.9])


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS.values(), ids=diffusion.SAMPLERS)
def test_sampling_leaves_its_start_untouched(sampler: Sampler) -> None:
    start = torch.randn(3)
    before = start.clone()
    last(sampler(exact_noise, start, diffusion.uniform_times(3), normal))
    assert torch.equal(start, before)


def test_the_data_weight_turns_error_of_noise_into_error_of_data(rng: torch.Generator) -> None:
    data, noise = torch.randn(4, 3, 5, 5, generator=rng), torch.randn(4, 3, 5, 5, generator=rng)
    t = torch.tensor([0.1, 0.3, 0.5, 0.7])  # below the cap
    wrong = noise + 0.1 * torch.randn(4, 3, 5, 5, generator=rng)
    noisy = diffusion.add_noise(data, noise, t)
    share = diffusion.signal(t).view(-1, 1, 1, 1)
    implied = (noisy - (1 - share).sqrt() * wrong) / share.sqrt()
    of_noise = (wrong - noise).square().mean(dim=(1, 2, 3))
    of_data = (implied - data).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(diffusion.data_weight(t) * of_noise, of_data)


def test_the_data_weight_is_at_most_ten_times_p2() -> None:
    t = torch.tensor([0.85, 0.95, 1.0])
    torch.testing.assert_close(diffusion.data_weight(t), 10 * diffusion.p2_weight(t))
