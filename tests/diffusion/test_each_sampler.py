"""Laws of single samplers; the oracles are other samplers, and those of diffusers."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_ddpm_wuerstchen import DDPMWuerstchenScheduler
from exact_denoisers import MEAN, SPREAD, exact_noise, forbidden, last, mixture_noise
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.diffusion import SAMPLERS, Denoiser
from wuerstchen.noise import seeded

SHAPE = (4, 3, 8, 8)

DDPM_TIMES = pytest.mark.parametrize(
    "times", [diffusion.uniform_times(12), diffusion.published_times()], ids=["uniform", "29"]
)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", ["ddim", "ddim-published", "heun", "dpm++2m"])
def test_deterministic_samplers_use_no_noise(name: str) -> None:
    last(SAMPLERS[name](exact_noise, torch.randn(5), diffusion.uniform_times(3), forbidden))


@pytest.mark.parametrize(
    ("name", "draws"), [("ddpm", 3), ("dpm++2m-sde", 2), ("euler-ancestral", 2)]
)
def test_stochastic_samplers_add_no_noise_at_the_last_step(name: str, draws: int) -> None:
    def huge(x: Tensor) -> Tensor:
        nonlocal drawn
        drawn += 1
        return torch.full_like(x, 1e6) if drawn == 3 else torch.zeros_like(x)

    drawn = 0
    found = last(SAMPLERS[name](exact_noise, torch.randn(5), diffusion.uniform_times(3), huge))
    assert drawn == draws  # ddpm draws once more than it needs, as diffusers does
    assert found.abs().max() < 100


def test_the_published_ddim_takes_the_authors_step_to_the_very_end(rng: torch.Generator) -> None:
    x = torch.randn(100, generator=rng, dtype=torch.float64)
    times = diffusion.uniform_times(12)
    t = torch.tensor(times, dtype=torch.float64)
    a_bar = ((t + 0.008) / 1.008 * torch.pi / 2).cos() ** 2
    a_bar = (a_bar / a_bar[-1]).clamp(0.0001, 0.9999)
    states = SAMPLERS["ddim-published"](exact_noise, x, times, forbidden)
    for state, (now, after), time in zip(states, pairwise(a_bar), times, strict=False):
        noise = exact_noise(x, time)
        data = (x - (1 - now).sqrt() * noise) / now.sqrt()
        x = after.sqrt() * data + (1 - after).sqrt() * noise
        torch.testing.assert_close(state, x, atol=1e-12, rtol=0)
    ours = last(diffusion.ddim(exact_noise, torch.zeros(1).double(), times, forbidden))
    theirs = last(
        SAMPLERS["ddim-published"](exact_noise, torch.zeros(1).double(), times, forbidden)
    )
    assert abs(theirs - ours).item() > 1e-5, "only the last step tells them apart"


def test_ddim_converges_to_the_probability_flow_with_order_one(rng: torch.Generator) -> None:
    start = torch.randn(1000, generator=rng, dtype=torch.float64)
    a_bar = diffusion.alpha_bar_at(1)
    # On the flow of Gaussian data every point keeps its standard score.
    score = (start - a_bar**0.5 * MEAN) / (a_bar * SPREAD**2 + 1 - a_bar) ** 0.5
    exact = MEAN + SPREAD * score
    errors = []
    for steps in (32, 64, 128):
        found = last(diffusion.ddim(exact_noise, start, diffusion.uniform_times(steps), forbidden))
        errors.append((found - exact).square().mean().sqrt().item())
    for coarse, fine in pairwise(errors):
        assert 1.7 < coarse / fine < 2.4, errors


@pytest.mark.parametrize("times", [[1.0, 0.0], [0.9, 0.4]], ids=["whole", "part"])
@pytest.mark.parametrize(("name", "plain"), [("dpm++2m", "ddim"), ("dpm++2m-sde", "ddpm")])
def test_one_step_of_a_multistep_sampler_is_its_first_order_form(
    name: str, plain: str, times: list[float], rng: torch.Generator
) -> None:
    start, noise = torch.randn(2, *SHAPE, generator=rng, dtype=torch.float64)
    found, expected = (
        last(SAMPLERS[each](mixture_noise, start, times, lambda x: noise)) for each in (name, plain)
    )
    # a whole run of ddpm ends with a trace of the noise
    tolerance = 0.02 if plain == "ddpm" and times[-1] == 0 else 1e-9
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_euler_ancestral_is_ddpm_in_all_states_but_the_last(rng: torch.Generator) -> None:
    start = torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    times = diffusion.uniform_times(12)
    *ours, end = diffusion.euler_ancestral(mixture_noise, start, times, seeded(1, 4))
    *theirs, other = diffusion.ddpm(mixture_noise, start, times, seeded(1, 4))
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(end, other)
    torch.testing.assert_close(end, other, atol=0.02, rtol=0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
@pytest.mark.parametrize(
    ("name", "algorithm"), [("dpm++2m", "dpmsolver++"), ("dpm++2m-sde", "sde-dpmsolver++")]
)
def test_dpm_solvers_equal_the_scheduler_of_diffusers_at_every_state(
    name: str, algorithm: str, rng: torch.Generator
) -> None:
    times = diffusion.uniform_times(12)
    a_bar = torch.tensor([diffusion.alpha_bar_at(t) for t in times[:-1]])
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type=algorithm, solver_order=2, lower_order_final=False
    )
    scheduler.set_timesteps(12)
    # Its noise levels are replaced by ours: it goes by them alone, time is but a number to it.
    scheduler.sigmas = torch.cat([((1 - a_bar) / a_bar).sqrt(), torch.zeros(1)])
    start = theirs = torch.randn(SHAPE, generator=rng)
    noises = torch.randn(12, *SHAPE, generator=rng)
    draws = iter(noises)
    ours = SAMPLERS[name](mixture_noise, start, times, lambda x: next(draws))
    walk = zip(times[:-1], scheduler.timesteps, noises, ours, strict=True)
    for t, step, noise, mine in walk:
        predicted = mixture_noise(theirs, t)
        theirs = scheduler.step(predicted, step, theirs, variance_noise=noise).prev_sample
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


@DDPM_TIMES
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
