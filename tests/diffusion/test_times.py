"""Laws of the lists of times for sampling."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from exact_denoisers import last, normal
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.diffusion import times as times_module

EVERY_LIST = pytest.mark.parametrize("make", diffusion.TIMES.values(), ids=list(diffusion.TIMES))


@EVERY_LIST
def test_every_list_falls_strictly_from_exactly_one_to_exactly_zero(
    make: Callable[[int], list[float]],
) -> None:
    for steps in range(1, 101):
        times = make(steps)
        assert len(times) == steps + 1
        assert times[0] == 1 and times[-1] == 0
        assert all(t > s for t, s in pairwise(times)), times


@EVERY_LIST
def test_one_step_goes_straight_from_noise_to_data(make: Callable[[int], list[float]]) -> None:
    assert make(1) == [1.0, 0.0]


def test_uniform_times_fall_evenly_from_one_to_zero() -> None:
    assert diffusion.uniform_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.filterwarnings("ignore")  # diffusers' own, about deprecation
def test_even_times_are_in_fp32_those_of_diffusers_at_every_number_of_steps() -> None:
    from diffusers import DDPMWuerstchenScheduler

    scheduler = DDPMWuerstchenScheduler()
    for steps in range(1, 1001):
        scheduler.set_timesteps(steps)
        found = torch.tensor(diffusion.uniform_times(steps), dtype=torch.float32)
        assert torch.equal(found, scheduler.timesteps), steps


@pytest.mark.filterwarnings("ignore")
def test_published_times_are_in_fp32_those_of_diffusers() -> None:
    from diffusers.pipelines.deprecated.wuerstchen import pipeline_wuerstchen_prior as theirs

    expected = torch.tensor(theirs.DEFAULT_STAGE_C_TIMESTEPS, dtype=torch.float32)
    assert torch.equal(torch.tensor(diffusion.published_times()), expected)


def test_a_time_equals_the_decimal_number_of_an_interval() -> None:
    assert diffusion.uniform_times(10)[1:-1] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert diffusion.published_times()[20:] == [k / 15 for k in range(9, -1, -1)]


def test_log_snr_rises_evenly_over_the_log_snr_times() -> None:
    t = torch.tensor(diffusion.log_snr_times(12), dtype=torch.float64)
    a_bar = diffusion.alpha_bar(t)
    rises = (a_bar / (1 - a_bar)).log().diff()
    torch.testing.assert_close(rises, torch.full_like(rises, 2 * 9.210240 / 12), rtol=1e-6, atol=0)


def test_log_snr_times_have_the_middle_where_signal_and_noise_are_equal() -> None:
    assert diffusion.alpha_bar_at(diffusion.log_snr_times(2)[1]) == pytest.approx(0.5, abs=1e-12)


def test_tuned_times_reach_from_one_even_list_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = diffusion.uniform_times(12), diffusion.log_snr_times(12)
    for leaning, expected in zip((0.0, 1.0), ends, strict=True):
        monkeypatch.setattr(times_module, "TUNED_MIX", leaning)
        assert diffusion.tuned_times(12) == pytest.approx(expected)


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
