"""Laws of every sampler."""

from collections.abc import Sequence

import pytest
import torch
from exact_denoisers import MEAN, SPREAD, exact_noise, last, mixture_noise, normal
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.diffusion import SAMPLERS, Sampler
from wuerstchen.errors import ConfigError
from wuerstchen.noise import seeded

SHAPE = (4, 3, 8, 8)
TIME_LISTS = {
    "published": diffusion.published_times(),
    **{name: make(12) for name, make in diffusion.TIMES.items()},
}

EVERY_SAMPLER = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=list(SAMPLERS))
EVERY_NAME = pytest.mark.parametrize("name", SAMPLERS)
EVERY_TIMES = pytest.mark.parametrize("times", TIME_LISTS.values(), ids=list(TIME_LISTS))


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@EVERY_NAME
@EVERY_TIMES
def test_a_perfect_denoiser_restores_the_data(
    name: str, times: Sequence[float], rng: torch.Generator
) -> None:
    data = torch.randn(SHAPE, generator=rng, dtype=torch.float64)

    def oracle(x: Tensor, t: float) -> Tensor:  # the noise that is truly in x
        a_bar = diffusion.alpha_bar_at(t)
        return (x - a_bar**0.5 * data) / (1 - a_bar) ** 0.5

    found = last(SAMPLERS[name](oracle, torch.randn_like(data), times, normal))
    # These end at alpha_bar 0.9999: its root keeps 1 - 0.00005 of the data, and 0.01 of the noise.
    tolerance = 0.06 if name in ("ddpm", "ddim-published") else 1e-10
    torch.testing.assert_close(found, data, atol=tolerance, rtol=0)


@EVERY_SAMPLER
def test_the_exact_denoiser_of_a_gaussian_samples_that_gaussian(
    sampler: Sampler, rng: torch.Generator
) -> None:
    start = torch.randn(40_000, generator=rng)
    torch.manual_seed(1)
    found = last(sampler(exact_noise, start, diffusion.uniform_times(400), normal))
    assert found.mean().item() == pytest.approx(MEAN, abs=0.01)  # standard error 0.0025
    assert found.var().item() == pytest.approx(SPREAD**2, rel=0.02)  # standard error 0.007


@EVERY_SAMPLER
def test_intermediate_states_have_the_variance_of_their_time(
    sampler: Sampler, rng: torch.Generator
) -> None:
    times = diffusion.uniform_times(400)
    torch.manual_seed(2)
    start = torch.randn(20_000, generator=rng)
    states = sampler(exact_noise, start, times, normal)
    for s, state in zip(times[1:], states, strict=True):
        if s in (0.75, 0.5, 0.25):
            a_bar = diffusion.alpha_bar_at(s)
            assert state.mean().item() == pytest.approx(a_bar**0.5 * MEAN, abs=0.02)
            expected = a_bar * SPREAD**2 + 1 - a_bar
            assert state.var().item() == pytest.approx(expected, rel=0.03)


@EVERY_NAME
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_evaluations_count_the_calls_of_the_denoiser(name: str, end: float) -> None:
    calls: list[float] = []

    def counting(x: Tensor, t: float) -> Tensor:
        calls.append(t)
        return exact_noise(x, t)

    for times in ([1.0, end], [0.9, 0.5, end], [*diffusion.uniform_times(12)[:-2], end]):
        calls.clear()
        last(SAMPLERS[name](counting, torch.randn(3), times, normal))
        assert len(calls) == diffusion.evaluations(name, times)


def test_an_unknown_sampler_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"heun.*found 'plms'"):
        diffusion.evaluations("plms", [1.0, 0.0])


@EVERY_NAME
def test_stopping_early_costs_no_further_evaluation(name: str) -> None:
    calls: list[float] = []

    def counting(x: Tensor, t: float) -> Tensor:
        calls.append(t)
        return exact_noise(x, t)

    states = SAMPLERS[name](counting, torch.randn(3), diffusion.uniform_times(10), normal)
    assert calls == []
    next(states)
    next(states)
    states.close()  # type: ignore[attr-defined]
    assert calls == pytest.approx([1.0, 0.9, 0.9, 0.8] if name == "heun" else [1.0, 0.9])


@EVERY_SAMPLER
def test_sampling_leaves_its_start_and_its_yielded_states_untouched(sampler: Sampler) -> None:
    start = torch.randn(3)
    before = start.clone()
    kept = []
    for state in sampler(exact_noise, start, diffusion.uniform_times(5), normal):
        kept.append((state, state.clone()))
    assert torch.equal(start, before)
    assert len(kept) == 5 and all(torch.equal(state, copy) for state, copy in kept)


@EVERY_SAMPLER
def test_sampling_continues_from_a_state_that_the_caller_changed_in_place(
    sampler: Sampler, rng: torch.Generator
) -> None:
    seen: list[tuple[Tensor, float]] = []

    def watching(x: Tensor, t: float) -> Tensor:
        seen.append((x.clone(), t))
        return exact_noise(x, t)

    times = [1.0, 0.75, 0.5, 0.25, 0.0]
    changed: dict[float, Tensor] = {}
    for s, state in zip(
        times[1:], sampler(watching, torch.randn(SHAPE, generator=rng), times, normal), strict=True
    ):
        state.copy_(torch.randn(SHAPE, generator=rng))
        changed[s] = state.clone()
    for t in (0.75, 0.5, 0.25):
        assert any(at == t and torch.equal(x, changed[t]) for x, at in seen)


@EVERY_SAMPLER
def test_every_image_of_a_batch_is_the_image_of_its_seed_alone(sampler: Sampler) -> None:
    times = diffusion.uniform_times(6)
    draw = seeded(7, 4)
    together = last(sampler(mixture_noise, draw(torch.empty(SHAPE)), times, draw))
    for k in range(4):
        draw = seeded(7 + k, 1)
        alone = last(sampler(mixture_noise, draw(torch.empty(1, *SHAPE[1:])), times, draw))
        assert torch.equal(alone, together[k : k + 1])


@EVERY_SAMPLER
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_states_and_inputs_of_the_network_keep_the_dtype_of_the_start(
    sampler: Sampler, dtype: torch.dtype, rng: torch.Generator
) -> None:
    def checking(x: Tensor, t: float) -> Tensor:
        assert x.dtype == dtype
        return exact_noise(x, t)

    start = torch.randn(SHAPE, generator=rng).to(dtype)
    for times in TIME_LISTS.values():
        for state in sampler(checking, start, times, normal):
            assert state.dtype == dtype and state.isfinite().all()


# ── where the clamp makes steps of no length ──


@EVERY_SAMPLER
def test_steps_between_times_of_equal_alpha_bar_leave_the_state_as_it_is(
    sampler: Sampler, rng: torch.Generator
) -> None:
    start = torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    times = [1.0, 0.9999, 0.995, 0.5, 0.001, 0.0005, 0.0001, 0.0]
    first, second, _, late, later, latest, end = sampler(exact_noise, start, times, normal)
    torch.testing.assert_close(first, start)
    torch.testing.assert_close(second, start)
    torch.testing.assert_close(later, late)
    torch.testing.assert_close(latest, late)
    torch.testing.assert_close(end, late, atol=0.1, rtol=0)  # at most the last trace of noise off
    assert end.isfinite().all()


@EVERY_SAMPLER
@pytest.mark.parametrize("steps", [155, 156, 157, 1000])
def test_fine_lists_stay_finite_and_exact_through_both_clamps(
    sampler: Sampler, steps: int, rng: torch.Generator
) -> None:
    start = torch.randn(5_000, generator=rng, dtype=torch.float64)
    torch.manual_seed(3)
    found = last(sampler(exact_noise, start, diffusion.uniform_times(steps), normal))
    assert found.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert found.std().item() == pytest.approx(SPREAD, rel=0.04)


@EVERY_SAMPLER
def test_a_long_step_after_an_almost_empty_one_does_not_magnify_the_networks_error(
    sampler: Sampler,
) -> None:
    def erring(x: Tensor, t: float) -> Tensor:  # by 0.01, one way or the other
        return exact_noise(x, t) + (0.01 if t > 0.9936 else -0.01)

    times = [1.0, 0.99355, 0.9]  # the clamp ends at 0.99358: the first step is almost empty
    start = torch.zeros(5, dtype=torch.float64)
    right = last(sampler(exact_noise, start, times, torch.zeros_like))
    wrong = last(sampler(erring, start, times, torch.zeros_like))
    assert (wrong - right).abs().max() < 1
