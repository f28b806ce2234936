"""Data whose optimal denoiser and probability flow have a closed form."""

from collections.abc import Iterator

import torch
from torch import Tensor

from wuerstchen import diffusion

MEAN, SPREAD = 0.7, 0.5
"""Of the Gaussian data; neither its mean nor its deviation is that of the noise."""

WEIGHTS, MEANS, SPREADS = (0.35, 0.65), (-1.1, 0.9), (0.3, 0.5)
"""Of the mixture: two modes of different size."""


def exact_noise(x: Tensor, t: float) -> Tensor:
    """E[noise | x] for data from N(MEAN, SPREAD^2), by the conditioning formula of Gaussians."""
    a_bar = diffusion.alpha_bar_at(t)
    covariance, variance = (1 - a_bar) ** 0.5, a_bar * SPREAD**2 + (1 - a_bar)
    return covariance / variance * (x - a_bar**0.5 * MEAN)


def humps(t: float) -> list[tuple[float, float, float]]:
    """Weight, mean and variance of each hump of the noised mixture."""
    a_bar = diffusion.alpha_bar_at(t)
    return [
        (weight, a_bar**0.5 * mean, a_bar * spread**2 + 1 - a_bar)
        for weight, mean, spread in zip(WEIGHTS, MEANS, SPREADS, strict=True)
    ]


def mixture_noise(x: Tensor, t: float) -> Tensor:
    """E[noise | x] for data from the mixture: each hump's answer, weighted by its density at x."""
    sigma = (1 - diffusion.alpha_bar_at(t)) ** 0.5
    above, below = torch.zeros_like(x), torch.zeros_like(x)
    for weight, mean, variance in humps(t):
        density = weight * variance**-0.5 * torch.exp(-((x - mean) ** 2) / (2 * variance))
        above, below = above + density * sigma / variance * (x - mean), below + density
    return above / below


def mixture_cdf(x: Tensor, t: float) -> Tensor:
    """Share of the noised mixture at time t that lies below x."""
    parts = [
        weight * torch.special.ndtr((x - mean) / variance**0.5)
        for weight, mean, variance in humps(t)
    ]
    return torch.stack(parts).sum(dim=0)


def mixture_flow(x: Tensor, t: float, s: float) -> Tensor:
    """Where the probability flow carries x from time t to s.

    On a line the flow keeps the order of its points, and so the fraction of the data below each: no
    differential equation has to be solved for the exact answer.
    """
    fraction = mixture_cdf(x, t)
    low, high = torch.full_like(x, -20), torch.full_like(x, 20)
    for _ in range(80):  # halves 40 to below the last digit
        middle = (low + high) / 2
        under = mixture_cdf(middle, s) < fraction
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


def normal(x: Tensor) -> Tensor:
    return torch.randn_like(x)


def forbidden(x: Tensor) -> Tensor:
    raise AssertionError("noise was drawn")


def last(states: Iterator[Tensor]) -> Tensor:
    *_, state = states
    return state
