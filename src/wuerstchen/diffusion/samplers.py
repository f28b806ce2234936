"""Samplers from noise to data: generators of states, all with one signature.

With alpha^2 = alpha_bar(t) and sigma^2 = 1 - alpha_bar(t), a state is x = alpha data + sigma noise.
Where times end at 0 the last state of all but `ddpm` and `ddim_published` is the data that the last
prediction implies.
States keep the dtype of x; coefficients are Python floats, in double precision.

Every sampler continues from the very tensor that it yielded, which a caller may have changed in
place. Steps between times of equal alpha_bar, as the clamp makes them near 1 and 0, leave x as is.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import exp, expm1, log
from typing import NamedTuple

import torch
from torch import Tensor

from wuerstchen.diffusion.guidance import Denoiser
from wuerstchen.diffusion.schedule import alpha_bar_at, alpha_sigma
from wuerstchen.errors import ConfigError

Times = Sequence[float]
States = Iterator[Tensor]
Advance = Callable[[Tensor, Tensor, "Step"], Tensor]
"""(state, noise in it, step) to the next state."""

NoiseSource = Callable[[Tensor], Tensor]
"""x to standard normal noise of its shape, with one random stream per image."""

Sampler = Callable[[Denoiser, Tensor, Times, NoiseSource], States]
"""(denoiser, noise = state at times[0], falling times in [0, 1], source) to a state per step."""

FARTHEST = 4.0
"""Longest step, in lengths of the one before, over which `extrapolate` goes the full way.

The published list jumps by 3.6; after a step within the clamp of alpha_bar it is hundreds.
"""


class Step(NamedTuple):
    """A step from time t down to time s > 0."""

    t: float
    s: float
    alpha_t: float
    sigma_t: float
    alpha_s: float
    sigma_s: float

    def data(self, x: Tensor, noise: Tensor) -> Tensor:
        """The data in a state at time t, given its noise."""
        return (x - self.sigma_t * noise) / self.alpha_t

    @property
    def length(self) -> float:
        """In log(alpha / sigma)."""
        return max(log(self.alpha_s / self.sigma_s) - log(self.alpha_t / self.sigma_t), 0.0)


def ddpm(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """Ancestral sampling (arXiv:2006.11239, algorithm 2). Weak order 1."""
    for t, s in pairwise(times):
        a_t, a_s = alpha_bar_at(t), alpha_bar_at(s)
        ratio = a_t / a_s
        x = (x - (1 - ratio) / (1 - a_t) ** 0.5 * denoise(x, t)) / ratio**0.5
        # Sampled at the last step too, where it goes unused: diffusers' scheduler does the same,
        # so one seed gives one image in both.
        noise = randn(x)
        if s > 0:
            x = x + ((1 - ratio) * (1 - a_s) / (1 - a_t)) ** 0.5 * noise
        yield x


def ddim(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """Deterministic sampling (arXiv:2010.02502, equation 12 with eta = 0); `randn` is not used.

    Order 1: Euler's method for the probability flow.
    """
    del randn

    def advance(x: Tensor, noise: Tensor, step: Step) -> Tensor:
        return step.alpha_s * step.data(x, noise) + step.sigma_s * noise

    return _sample(denoise, x, times, advance)


def ddim_published(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """`ddim` as in the authors' code: the last step is like any other.

    It ends where alpha_bar is clamped, so 1 % of the predicted noise stays in the last state.
    """
    del randn
    for t, s in pairwise(times):
        step = Step(t, s, *alpha_sigma(t), *alpha_sigma(s))
        noise = denoise(x, t)
        x = step.alpha_s * step.data(x, noise) + step.sigma_s * noise
        yield x


def heun(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """Heun's method for the probability flow (arXiv:2206.00364, algorithm 1); `randn` is not used.

    Order 2. In the variables x / alpha and sigma / alpha the slope of the flow is the noise. A step
    averages it at both its ends, two evaluations. The step to t = 0 is Euler's and costs one.
    """
    del randn

    def advance(x: Tensor, noise: Tensor, step: Step) -> Tensor:
        ratio = step.alpha_s / step.alpha_t
        fall = step.sigma_s - step.sigma_t * step.alpha_s / step.alpha_t
        at_end = denoise(ratio * x + fall * noise, step.s)
        return ratio * x + fall * torch.lerp(noise, at_end, 0.5)

    return _sample(denoise, x, times, advance)


def euler_ancestral(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """Euler's method down the probability flow to less noise than s has, then fresh noise up to s.

    As in k-diffusion with eta = 1. Weak order 1. Algebraically it is `ddpm` in other variables, so
    their states agree to rounding, but the last one at t = 0, which here is the data itself.
    """

    def advance(x: Tensor, noise: Tensor, step: Step) -> Tensor:
        ratio_t, ratio_s = step.sigma_t / step.alpha_t, step.sigma_s / step.alpha_s
        down = ratio_s**2 / ratio_t
        up = max(ratio_s**2 - down**2, 0.0) ** 0.5
        x = step.alpha_s / step.alpha_t * x + step.alpha_s * (down - ratio_t) * noise
        x = x + step.alpha_s * up * randn(x)
        return x

    return _sample(denoise, x, times, advance)


def dpm_solver(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2); `randn` is not used.

    Order 2, at one evaluation a step: it extrapolates from the previous step, and is exact where
    the predicted data is a straight line in log(alpha / sigma). The first step is `ddim`'s.
    """
    del randn
    previous: tuple[Tensor, float] | None = None

    def advance(x: Tensor, noise: Tensor, step: Step) -> Tensor:
        nonlocal previous
        data, length = step.data(x, noise), step.length
        middle = extrapolate(data, length, previous)
        previous = (data, length) if length > 0 else previous
        return step.sigma_s / step.sigma_t * x - step.alpha_s * expm1(-length) * middle

    return _sample(denoise, x, times, advance)


def dpm_solver_sde(denoise: Denoiser, x: Tensor, times: Times, randn: NoiseSource) -> States:
    """SDE-DPM-Solver++(2M) (arXiv:2211.01095, appendix): `dpm_solver` with noise in every step.

    The first step is `ddpm`'s, as all would be without extrapolation. The last samples no noise.
    """
    previous: tuple[Tensor, float] | None = None

    def advance(x: Tensor, noise: Tensor, step: Step) -> Tensor:
        nonlocal previous
        data, length = step.data(x, noise), step.length
        fresh = -expm1(-2 * length)  # fraction of the noise at s that is sampled anew
        middle = extrapolate(data, length, previous)
        previous = (data, length) if length > 0 else previous
        x = step.sigma_s / step.sigma_t * exp(-length) * x + step.alpha_s * fresh * middle
        x = x + step.sigma_s * fresh**0.5 * randn(x)
        return x

    return _sample(denoise, x, times, advance)


def extrapolate(data: Tensor, length: float, previous: tuple[Tensor, float] | None) -> Tensor:
    """The data prediction in the middle of a step, on a line through this and the previous one.

    length    of the step, in log(alpha / sigma)
    previous  the prediction one step earlier, and the length of that step, which is not 0
    """
    if previous is None:
        return data
    earlier, past = previous
    return torch.lerp(earlier, data, 1 + min(length / past, FARTHEST) / 2)


def _sample(denoise: Denoiser, x: Tensor, times: Times, advance: Advance) -> States:
    """Yield the state after every step; that of a step to t = 0 is the data."""
    for t, s in pairwise(times):
        step = Step(t, s, *alpha_sigma(t), *alpha_sigma(s))
        noise = denoise(x, t)
        x = advance(x, noise, step) if s > 0 else step.data(x, noise)
        yield x


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "ddim-published": ddim_published,
    "dpm++2m": dpm_solver,
    "dpm++2m-sde": dpm_solver_sde,
    "heun": heun,
    "euler-ancestral": euler_ancestral,
}


def evaluations(sampler: str, times: Times) -> int:
    """Calls of the denoiser by this sampler over `times`; ConfigError for an unknown name."""
    if sampler not in SAMPLERS:
        raise ConfigError(f"The sampler must be one of {', '.join(SAMPLERS)}, found {sampler!r}.")
    steps = len(times) - 1
    return steps if sampler != "heun" else 2 * steps - (times[-1] == 0)
