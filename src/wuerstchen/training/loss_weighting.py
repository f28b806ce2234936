"""Weights of the loss at each noise level: by a formula, or learned during training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.config import LossWeight
from wuerstchen.training.distributed import all_gather, comm_device

LEVELS = 300
"""Noise levels, evenly spaced over the log-SNR, as in version 3's code."""

RANGE = 10.0
"""Largest log-SNR, either sign; the clamped schedule stays within 9.21."""

MEMORY = 0.99
"""Decay of a level's mean error, for each image at the level."""


class Weighting(ABC):
    """Weights of the (B,) errors of the noise predicted at (B,) times."""

    @abstractmethod
    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        """(B,) weights for training, on the device of `error`; t may be on the CPU."""

    @abstractmethod
    def fixed(self, t: Tensor) -> Tensor:
        """(B,) weights that never change, for losses that are compared."""

    def state(self) -> dict[str, Tensor]:
        """State tensors: saved in checkpoints, and loaded in place."""
        return {}

    def before_step(self) -> None:  # noqa: B027  # a formula collects nothing
        """Discard what was collected in a step that ran out of memory and is repeated."""

    def after_step(self) -> dict[str, float]:
        """Learn from the errors of an optimizer step; returns scalars for the log."""
        return {}


@final
class FixedWeight(Weighting):
    """A function of the time alone."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        self._weight = weight

    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        return self._weight(t.to(error.device))

    def fixed(self, t: Tensor) -> Tensor:
        return self._weight(t)


@final
class AdaptiveWeight(Weighting):
    """One over the mean error at a noise level, so that no level outweighs another.

    The first images of a level are averaged plainly; a level without images weighs 1. The means
    are updated once per step with the images of all processes in batch order, so they depend on
    neither the micro-batches nor the number of processes.
    """

    def __init__(self) -> None:
        self.means = torch.ones(LEVELS, dtype=torch.float64)
        self.counts = torch.zeros(LEVELS, dtype=torch.int64)
        self._collected: list[tuple[Tensor, Tensor]] = []  # (B,) levels, (B,) errors

    @torch.no_grad()
    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        alpha_bar = diffusion.alpha_bar(t.double())
        position = ((alpha_bar / (1 - alpha_bar)).log() + RANGE) / (2 * RANGE) * LEVELS
        levels = position.long().clamp(0, LEVELS - 1)
        self._collected.append((levels, error.detach()))
        return (1 / self.means[levels]).float().to(error.device)

    def fixed(self, t: Tensor) -> Tensor:
        """The published weight: losses under a weight that changes cannot be compared."""
        return diffusion.p2_weight(t)

    def state(self) -> dict[str, Tensor]:
        return {"weight.means": self.means, "weight.counts": self.counts}

    def before_step(self) -> None:
        self._collected.clear()

    def after_step(self) -> dict[str, float]:
        levels = torch.cat([levels.double() for levels, _ in self._collected])
        errors = torch.cat([error.cpu().double() for _, error in self._collected])
        self._collected.clear()
        of_all = all_gather(torch.stack([levels, errors], dim=1).to(comm_device()))  # (all B, 2)
        for level, error in of_all.tolist():
            at = int(level)
            self.counts[at] += 1
            rate = max(1 - MEMORY, 1 / int(self.counts[at]))
            self.means[at] += rate * (error - self.means[at])
        return {"weight_spread": float(self.means.max() / self.means.min())}


def weighting(name: LossWeight) -> Weighting:
    """The weighting of this name in a config."""
    return AdaptiveWeight() if name == "adaptive" else FixedWeight(diffusion.LOSS_WEIGHTS[name])


def held_out_errors(weighting: Weighting, errors: Tensor, times: Tensor) -> dict[str, float]:
    """`held_out`, and the unweighted mean error in each quarter of the times; `held_out_75` is of
    the noisiest."""
    quarters = (times * 4).long().clamp(max=3)
    return {"held_out": float((weighting.fixed(times) * errors).mean())} | {
        f"held_out_{25 * quarter}": float(errors[quarters == quarter].mean())
        for quarter in range(4)
        if bool((quarters == quarter).any())
    }
