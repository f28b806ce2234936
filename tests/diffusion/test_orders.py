"""Convergence of the samplers to the exact solution as their steps get finer.

Between t = 0.95 and 0.05, where no clamp of the schedule and no last step interferes.
"""

from itertools import pairwise
from math import log2

import pytest
import torch
from exact_denoisers import (
    MEAN,
    SPREAD,
    exact_noise,
    forbidden,
    last,
    mixture_cdf,
    mixture_flow,
    mixture_noise,
)
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.diffusion import SAMPLERS

FIRST, LAST = 0.95, 0.05

DETERMINISTIC = {"ddim": 1, "ddim-published": 1, "dpm++2m": 2, "heun": 2}
STOCHASTIC = {"ddpm": 1, "euler-ancestral": 1, "dpm++2m-sde": 2}
"""Samplers by name, with their order."""


def even_times(steps: int) -> list[float]:
    return [FIRST + (LAST - FIRST) * k / steps for k in range(steps + 1)]


def slopes(errors: list[float]) -> list[float]:
    """Order from one error to the next, with twice as many steps."""
    return [log2(coarse / fine) for coarse, fine in pairwise(errors)]


def test_every_sampler_has_its_order_proved_here() -> None:
    assert set(DETERMINISTIC) | set(STOCHASTIC) == set(SAMPLERS)


@pytest.mark.parametrize(("name", "order"), DETERMINISTIC.items())
def test_deterministic_samplers_converge_to_the_flow_of_a_mixture(name: str, order: int) -> None:
    start = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    exact = mixture_flow(start, FIRST, LAST)
    errors = []
    for steps in (128, 256, 512):
        found = last(SAMPLERS[name](mixture_noise, start, even_times(steps), forbidden))
        errors.append((found - exact).square().mean().sqrt().item())
    assert slopes(errors) == pytest.approx([order] * 2, abs=0.2), errors
    assert errors[-1] < 0.01


def moments(name: str, times: list[float]) -> tuple[float, float]:
    """Mean and variance of a sampler's last state, exactly, for Gaussian data.

    The exact denoiser of a Gaussian is affine in x, and so is then the whole sampler: in its start
    and in each of its draws. Row 0 has neither, row 1 a start one standard deviation off, each
    further row a one in a randn of its own; what that makes of the last state adds up in squares.
    """
    a_bar = diffusion.alpha_bar_at(times[0])
    rows = torch.full((len(times) + 1,), a_bar**0.5 * MEAN, dtype=torch.float64)
    rows[1] += (a_bar * SPREAD**2 + 1 - a_bar) ** 0.5
    drawn = 1

    def impulse(x: Tensor) -> Tensor:
        nonlocal drawn
        drawn += 1
        return torch.nn.functional.one_hot(torch.tensor(drawn), len(x)).to(x)

    found = last(SAMPLERS[name](exact_noise, rows, times, impulse))
    assert drawn == len(times)
    return found[0].item(), (found[1:] - found[0]).square().sum().item()


@pytest.mark.parametrize(("name", "order"), STOCHASTIC.items())
def test_stochastic_samplers_converge_weakly_on_a_gaussian(name: str, order: int) -> None:
    a_bar = diffusion.alpha_bar_at(LAST)
    errors = []
    for steps in (128, 256, 512):
        mean, variance = moments(name, even_times(steps))
        assert mean == pytest.approx(a_bar**0.5 * MEAN, abs=1e-9)  # at any number of steps
        errors.append(abs(variance - (a_bar * SPREAD**2 + 1 - a_bar)))
    assert slopes(errors) == pytest.approx([order] * 2, abs=0.2), errors
    assert errors[-1] < 0.01


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_of_a_mixture_have_its_distribution(name: str) -> None:
    rng = torch.Generator().manual_seed(5)
    start = torch.randn(40_000, generator=rng, dtype=torch.float64)

    def randn(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=rng, dtype=x.dtype)

    found = last(SAMPLERS[name](mixture_noise, start, diffusion.uniform_times(150), randn))
    ranks = torch.arange(0.5, len(found), dtype=torch.float64) / len(found)
    gap = (mixture_cdf(found.sort().values, 0.0) - ranks).abs().max().item()
    assert gap < 0.015  # Kolmogorov's bound for 1 chance in 1000 is 0.0097, the rest is step error
