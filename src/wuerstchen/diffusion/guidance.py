"""From a network and its conditions to a denoiser, with or without classifier-free guidance.

Samplers know nothing of guidance; they are given a denoiser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from wuerstchen.errors import ConfigError

Denoiser = Callable[[Tensor, float], Tensor]
"""(noisy, t) to the noise in it."""

Condition = TypeVar("Condition", contravariant=True)

ROUNDING = 1e-6
"""Times within this of an end of an interval are in it: they may have been rounded to fp32."""


class Network(Protocol[Condition]):
    """A stage as diffusion sees it: (noisy, (B,) times, condition) to the noise."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition, /) -> Tensor: ...


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when, sampling is guided away from the negative condition.

    Raises ConfigError for values out of range.
    """

    scale: float = 1.0
    """Classifier-free guidance (arXiv:2207.12598): 1 follows the condition, 4 insists.
    1 and less is no guidance."""
    interval: tuple[float, float] = (0.0, 1.0)
    """The least and the greatest t that are guided, both included (arXiv:2404.07724)."""
    rescale: float = 0.0
    """Fraction in [0, 1] by which the standard deviation is pulled back to that of the conditional
    prediction, against overexposed images (arXiv:2305.08891, eq. 15 and 16)."""
    end: float | None = None
    """The scale at t = 0, reached linearly from `scale` at t = 1; None: constant."""

    def __post_init__(self) -> None:
        low, high = self.interval
        for name, scale in (("scale", self.scale), ("end", self.end)):
            if scale is not None and not isfinite(scale):
                raise ConfigError(f"The {name} of guidance must be a finite number, found {scale}.")
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                "The interval of guidance must be two times between 0 (data) and 1 (noise), the "
                f"smaller one first, found {low} and {high}."
            )
        if not 0 <= self.rescale <= 1:
            raise ConfigError(
                f"The rescale of guidance must be between 0 and 1, found {self.rescale}."
            )

    def scale_at(self, t: float) -> float | None:
        """The scale at time t; None where t is not guided, so that the negative half is saved."""
        low, high = self.interval
        if not low - ROUNDING <= t <= high + ROUNDING:
            return None
        scale = self.scale if self.end is None else self.end + (self.scale - self.end) * t
        return scale if scale > 1 else None

    @property
    def active(self) -> bool:
        """Whether any time is guided. The scale is linear in t, so its ends decide."""
        return any(self.scale_at(t) is not None for t in self.interval)


def unguided(network: Network[Condition], condition: Condition) -> Denoiser:
    """The network's own prediction under `condition`."""

    def denoise(x: Tensor, t: float) -> Tensor:
        return network(x, x.new_full((len(x),), t), condition)

    return denoise


def guided(
    network: Network[Condition], both: Condition, positive: Condition, guidance: Guidance
) -> Denoiser:
    """The network's prediction, guided from the negative to the positive condition.

    both      condition of 2 B images: the positive half first, then the negative (or empty) half
    positive  condition of the B positive ones alone, for times without guidance: half the work
    """
    alone = unguided(network, positive)

    def denoise(x: Tensor, t: float) -> Tensor:
        scale = guidance.scale_at(t)
        if scale is None:
            return alone(x, t)
        noise = network(torch.cat([x, x]), x.new_full((2 * len(x),), t), both)
        conditional, negative = noise.chunk(2)
        mixed = torch.lerp(negative, conditional, scale)
        return rescaled(mixed, conditional, guidance.rescale) if guidance.rescale > 0 else mixed

    return denoise


def rescaled(noise: Tensor, conditional: Tensor, fraction: float) -> Tensor:
    """(B, C, H, W) guided noise, each image's deviation pulled back to the conditional noise's."""
    dims = tuple(range(1, noise.ndim))
    deviation = noise.std(dims, correction=0, keepdim=True)  # (B, 1, 1, 1)
    target = conditional.std(dims, correction=0, keepdim=True)
    flat = deviation <= torch.finfo(noise.dtype).eps  # a constant has nothing to rescale
    factor = torch.where(flat, 1, target / deviation)
    return noise * (1 + fraction * (factor - 1))
