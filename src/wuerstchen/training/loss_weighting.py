"""What the error at each noise level counts: by a formula, or by what is learned under way."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.config import LossWeight
from wuerstchen.training.distributed import all_gather, comm_device

LEVELS = 300
"""Noise levels that are told apart, evenly over the log-SNR, as in version 3's code."""

RANGE = 10.0
"""Largest log-SNR, either sign; the clamped schedule stays within 9.21."""

MEMORY = 0.99
"""Decay of a level's mean error, each time that images fall on the level."""


class Weighting(ABC):
    """What the (B,) errors of the noise at (B,) times count in a loss."""

    @abstractmethod
    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        """(B,) weights for training."""

    @abstractmethod
    def fixed(self, t: Tensor) -> Tensor:
        """(B,) weights that stay the same under way, for losses that shall be compared."""

    def memory(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold of it; loaded into these tensors."""
        return {}

    def before_step(self) -> None:  # noqa: B027  # a formula has nothing to forget
        """A step begins, perhaps again: of what was noted in a broken one, nothing counts."""

    def after_step(self) -> dict[str, float]:
        """After an optimizer step: learn from what was noted; returns scalars for the log."""
        return {}


class FixedWeight(Weighting):
    """A function of the time alone."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        self._weight = weight

    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        del error
        return self._weight(t)

    def fixed(self, t: Tensor) -> Tensor:
        return self._weight(t)


class AdaptiveWeight(Weighting):
    """One over the mean error at a noise level: then no level outweighs another.

    A level's first images make a plain mean, and one without any weighs 1. The means are moved
    once a step, by all images of all processes in the order of the batch, so that they depend on
    neither.
    """

    def __init__(self) -> None:
        self.means = torch.ones(LEVELS, dtype=torch.float64)
        self.counts = torch.zeros(LEVELS, dtype=torch.int64)
        self._noted: list[Tensor] = []  # (2, B): levels and errors of this step

    @torch.no_grad()
    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        share = diffusion.alpha_bar(t.double()).cpu()
        at = ((share / (1 - share)).log() + RANGE) / (2 * RANGE) * LEVELS
        levels = at.long().clamp(0, LEVELS - 1)
        self._noted.append(torch.stack([levels.double(), error.detach().double().cpu()]))
        return (1 / self.means[levels]).float().to(error.device)

    def fixed(self, t: Tensor) -> Tensor:
        """The published weight: losses by what is learned under way cannot be compared."""
        return diffusion.p2_weight(t)

    def memory(self) -> dict[str, Tensor]:
        return {"weight.means": self.means, "weight.counts": self.counts}

    def before_step(self) -> None:
        self._noted.clear()

    def after_step(self) -> dict[str, float]:
        noted = torch.cat(self._noted, dim=1)  # (2, B)
        self._noted.clear()
        everywhere = all_gather(noted.T.to(comm_device()))  # (all B, 2)
        for level, error in everywhere.tolist():
            at = int(level)
            self.counts[at] += 1
            rate = max(1 - MEMORY, 1 / int(self.counts[at]))
            self.means[at] += rate * (error - self.means[at])
        return {"weight_spread": float(self.means.max() / self.means.min())}


def weighting(name: LossWeight) -> Weighting:
    """The weight that a config names."""
    return AdaptiveWeight() if name == "adaptive" else FixedWeight(diffusion.LOSS_WEIGHTS[name])


def held_out_errors(weight: Weighting, errors: Tensor, times: Tensor) -> dict[str, float]:
    """`held_out`, and the plain mean error in each quarter of the times: `held_out_75` is the
    noisiest."""
    quarters = (times * 4).long().clamp(max=3)
    return {"held_out": float((weight.fixed(times) * errors).mean())} | {
        f"held_out_{25 * quarter}": float(errors[quarters == quarter].mean())
        for quarter in range(4)
        if bool((quarters == quarter).any())
    }
