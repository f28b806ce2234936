"""Ways from noise to data: generators over states, all of one signature.

With alpha^2 = signal(t) and sigma^2 = 1 - signal(t), a state is x = alpha * data + sigma * noise.
Where times end at 0 the last state of all but `ddpm` is the data that the last prediction implies.

States keep the type of x; coefficients are Python floats, in double precision.
Every sampler goes on from the very tensor that it yielded, which a caller may have changed in
place. Steps between times of equal signal, as the clamp makes them near 1 and 0, leave x as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import exp, expm1, log

import torch
from torch import Tensor

from wuerstchen.diffusion.guidance import Denoiser
from wuerstchen.diffusion.schedule import signal_at
from wuerstchen.errors import ConfigError

Draw = Callable[[Tensor], Tensor]
"""x to standard normal noise of its shape, from one stream per image."""

Sampler = Callable[[Denoiser, Tensor, Sequence[float], Draw], Iterator[Tensor]]
"""Walks x down the times and yields every state on the way."""

FARTHEST = 4.0
"""Longest step, in lengths of the one before, that `ahead` extrapolates in full.

The jump in the published list is 3.6. Where the clamp of signal ends in the middle of a step, that
step is nearly empty, and its neighbour hundreds of times as long.
"""


def ddpm(denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw) -> Iterator[Tensor]:
    """Ancestral sampling (arXiv:2006.11239, algorithm 2). Weak order 1.

    x      (B, C, H, W) standard normal noise, the state at times[0]
    times  falling values in [0, 1]
    """
    for t, s in pairwise(times):
        share_t, share_s = signal_at(t), signal_at(s)
        step = share_t / share_s
        x = (x - (1 - step) / (1 - share_t) ** 0.5 * denoise(x, t)) / step**0.5
        # Drawn at the last step too, where it goes unused: the stream then stays in step with
        # diffusers, whose scheduler does the same, and one seed gives one image in both.
        noise = draw(x)
        if s > 0:
            x = x + ((1 - step) * (1 - share_s) / (1 - share_t)) ** 0.5 * noise
        yield x


def ddim(denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw) -> Iterator[Tensor]:
    """Deterministic sampling (arXiv:2010.02502, equation 12 with eta = 0); `draw` is not used.

    Order 1: Euler's method for the probability flow.
    """
    del draw
    for t, s in pairwise(times):
        share_t, share_s = signal_at(t), signal_at(s)
        noise = denoise(x, t)
        data = (x - (1 - share_t) ** 0.5 * noise) / share_t**0.5
        x = share_s**0.5 * data + (1 - share_s) ** 0.5 * noise if s > 0 else data
        yield x


def heun(denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw) -> Iterator[Tensor]:
    """Heun's method for the probability flow (arXiv:2206.00364, algorithm 1); `draw` is not used.

    Order 2. In the variables x / alpha and sigma / alpha the flow of our schedule is theirs, and
    its slope is the noise: the mean is taken of its predictions at both ends of a step, so a step
    costs two evaluations. The step to t = 0 is Euler's and costs one.
    """
    del draw
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = shares(t), shares(s)
        noise = denoise(x, t)
        if s > 0:
            keep, fall = alpha_s / alpha_t, sigma_s - sigma_t * alpha_s / alpha_t
            there = denoise(keep * x + fall * noise, s)
            x = keep * x + fall * torch.lerp(noise, there, 0.5)
        else:
            x = (x - sigma_t * noise) / alpha_t
        yield x


def euler_ancestral(
    denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw
) -> Iterator[Tensor]:
    """Euler's method down the probability flow to less noise than s has, then fresh noise up to s.

    This is the sampler of that name in k-diffusion with eta = 1: the fresh noise has the variance
    of the ancestral step. Weak order 1. By arithmetic it is `ddpm` written in other variables, so
    their states agree to rounding; only the last one at t = 0 differs, which here is the data
    itself and draws nothing.
    """
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = shares(t), shares(s)
        noise = denoise(x, t)
        if s > 0:
            ratio_t, ratio_s = sigma_t / alpha_t, sigma_s / alpha_s
            down = ratio_s**2 / ratio_t
            up = max(ratio_s**2 - down**2, 0.0) ** 0.5
            x = alpha_s / alpha_t * x + alpha_s * (down - ratio_t) * noise
            x = x + alpha_s * up * draw(x)
        else:
            x = (x - sigma_t * noise) / alpha_t
        yield x


def dpm_solver(
    denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw
) -> Iterator[Tensor]:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2); `draw` is not used.

    Order 2, at one evaluation a step: it is exact where the predicted data is a straight line in
    log(alpha / sigma), and takes the line from the step before. The first step has order 1 (it is
    `ddim`).
    """
    del draw
    before: tuple[Tensor, float] | None = None
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = shares(t), shares(s)
        data = (x - sigma_t * denoise(x, t)) / alpha_t
        if s > 0:
            length = max(log(alpha_s / sigma_s) - log(alpha_t / sigma_t), 0.0)
            x = sigma_s / sigma_t * x - alpha_s * expm1(-length) * ahead(data, length, before)
            before = (data, length) if length > 0 else before
        else:
            x = data
        yield x


def dpm_solver_sde(
    denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw
) -> Iterator[Tensor]:
    """SDE-DPM-Solver++(2M) (arXiv:2211.01095, appendix): `dpm_solver` with noise in every step.

    The first step is `ddpm`'s, and so would be all of them without the line that is taken from
    the step before. The last one at t = 0 draws nothing.
    """
    before: tuple[Tensor, float] | None = None
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = shares(t), shares(s)
        data = (x - sigma_t * denoise(x, t)) / alpha_t
        if s > 0:
            length = max(log(alpha_s / sigma_s) - log(alpha_t / sigma_t), 0.0)
            fresh = -expm1(-2 * length)  # share of the noise at s that is drawn anew
            x = sigma_s / sigma_t * exp(-length) * x + alpha_s * fresh * ahead(data, length, before)
            x = x + sigma_s * fresh**0.5 * draw(x)
            before = (data, length) if length > 0 else before
        else:
            x = data
        yield x


def shares(t: float) -> tuple[float, float]:
    """alpha and sigma: how much of the data and of the noise is in a state at time t."""
    share = signal_at(t)
    return share**0.5, (1 - share) ** 0.5


def ahead(data: Tensor, length: float, before: tuple[Tensor, float] | None) -> Tensor:
    """The data prediction as it will be in the middle of a step, if it goes on as it went.

    length  of the step, in log(alpha / sigma)
    before  the prediction one step earlier, and the length of that step, which is not 0
    """
    if before is None:
        return data
    earlier, past = before
    return torch.lerp(earlier, data, 1 + min(length / past, FARTHEST) / 2)


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm++2m": dpm_solver,
    "dpm++2m-sde": dpm_solver_sde,
    "heun": heun,
    "euler-ancestral": euler_ancestral,
}


def evaluations(sampler: str, times: Sequence[float]) -> int:
    """How often a sampler, by its name in `SAMPLERS`, calls its denoiser on the way down `times`.

    Raises ConfigError for a name that is not there.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f"The sampler must be one of {', '.join(SAMPLERS)}, found {sampler!r}.")
    steps = len(times) - 1
    if sampler != "heun":
        return steps
    return 2 * steps - (1 if times[-1] == 0 else 0)
