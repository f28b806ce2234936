"""From a network and its conditions to a denoiser: alone, or led away from what is unwanted.

Samplers never hear of guidance; they are given a denoiser.
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


class Network(Protocol[Condition]):
    """A stage as diffusion sees it: (noisy, (B,) times, condition) to the noise."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition, /) -> Tensor: ...


@dataclass(frozen=True)
class Guidance:
    """How hard, and when, a run is led from the unwanted condition to the wanted one.

    Raises ConfigError for values outside of their ranges.
    """

    scale: float = 1.0
    """Classifier-free guidance (arXiv:2207.12598): 1 follows the wanted condition, 4 insists.
    1 and less is no guidance."""

    interval: tuple[float, float] = (0.0, 1.0)
    """The least and the greatest t that are guided, both included (arXiv:2404.07724)."""

    rescale: float = 0.0
    """Share in [0, 1] of the way back to the spread of the wanted prediction, against
    overexposed images (arXiv:2305.08891, eq. 15 and 16)."""

    end: float | None = None
    """The scale at t = 0, reached in a straight line from `scale` at t = 1; None: all the same."""

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
        """The scale at time t; None where t is not guided, so the unwanted half can be saved."""
        low, high = self.interval
        if not low <= t <= high:
            return None
        scale = self.scale if self.end is None else self.end + (self.scale - self.end) * t
        return scale if scale > 1 else None

    @property
    def active(self) -> bool:
        """Whether any time is guided. The scale is a straight line, so its ends tell."""
        return any(self.scale_at(t) is not None for t in self.interval)


def unguided(network: Network[Condition], condition: Condition) -> Denoiser:
    """The network's own prediction under `condition`."""

    def denoise(x: Tensor, t: float) -> Tensor:
        return network(x, x.new_full((len(x),), t), condition)

    return denoise


def guided(
    network: Network[Condition], both: Condition, wanted: Condition, guidance: Guidance
) -> Denoiser:
    """The network's prediction, led from the unwanted to the wanted condition.

    both    condition of 2 B images: the wanted half first, then the unwanted (or empty) half
    wanted  condition of the B wanted ones alone, for times without guidance: half of the work
    """
    alone = unguided(network, wanted)

    def denoise(x: Tensor, t: float) -> Tensor:
        scale = guidance.scale_at(t)
        if scale is None:
            return alone(x, t)
        noise = network(torch.cat([x, x]), x.new_full((2 * len(x),), t), both)
        towards, away = noise.chunk(2)
        led = torch.lerp(away, towards, scale)
        return rescaled(led, towards, guidance.rescale) if guidance.rescale > 0 else led

    return denoise


def rescaled(led: Tensor, wanted: Tensor, share: float) -> Tensor:
    """(B, C, H, W) guided noise, `share` of the way to the spread of the wanted noise.

    The paper's equations, for each image by itself, here on the noise that our networks predict.
    """
    dims = tuple(range(1, led.ndim))
    spread = led.std(dims, correction=0, keepdim=True)  # (B, 1, 1, 1)
    aim = wanted.std(dims, correction=0, keepdim=True)
    flat = spread <= torch.finfo(led.dtype).eps  # a constant has no spread to bring back
    factor = torch.where(flat, 1, aim / spread)
    return led * (1 + share * (factor - 1))
