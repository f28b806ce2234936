"""What the error at each noise level counts: by a formula, or by what is learned under way."""

from collections.abc import Callable

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.config import LossWeight
from wuerstchen.training.processes import from_all, wire

LEVELS = 300
"""Noise levels that are told apart, evenly over the log-SNR, as in version 3's code."""

RANGE = 10.0
"""Largest log-SNR, either sign; the clamped schedule stays within 9.21."""

MEMORY = 0.99
"""Decay of a level's mean error, each time that pictures fall on the level."""


class AdaptiveWeight:
    """One over the mean error at a noise level: then no level outweighs another.

    A level's first pictures make a plain mean, and one without any weighs 1. The means are moved
    once a step, by all pictures of all processes in the order of the batch, so that they depend on
    neither.
    """

    def __init__(self) -> None:
        self.means = torch.ones(LEVELS, dtype=torch.float64)
        self.counts = torch.zeros(LEVELS, dtype=torch.int64)
        self._noted: list[Tensor] = []  # (2, B): levels and errors of this step

    def forget(self) -> None:
        """Of what was noted in a step that did not come to its end, nothing counts."""
        self._noted.clear()

    @torch.no_grad()
    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        """(B,) weights for the (B,) errors of the noise at times t."""
        share = diffusion.signal(t.double()).cpu()
        at = ((share / (1 - share)).log() + RANGE) / (2 * RANGE) * LEVELS
        levels = at.long().clamp(0, LEVELS - 1)
        self._noted.append(torch.stack([levels.double(), error.detach().double().cpu()]))
        return (1 / self.means[levels]).float().to(error.device)

    def after_step(self) -> None:
        """Move the means by what was noted since the last step."""
        noted = torch.cat(self._noted, dim=1)  # (2, B)
        self._noted.clear()
        everywhere = from_all(noted.T.to(wire()))  # (all B, 2)
        for level, error in everywhere.tolist():
            at = int(level)
            self.counts[at] += 1
            rate = max(1 - MEMORY, 1 / int(self.counts[at]))
            self.means[at] += rate * (error - self.means[at])


class FixedWeight:
    """A function of the time alone."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        self._weight = weight

    def __call__(self, t: Tensor, error: Tensor) -> Tensor:
        del error
        return self._weight(t)


Weighting = AdaptiveWeight | FixedWeight


def weighting(name: LossWeight) -> Weighting:
    return AdaptiveWeight() if name == "adaptive" else FixedWeight(diffusion.LOSS_WEIGHTS[name])


def remembered(weight: Weighting) -> dict[str, Tensor]:
    """What a checkpoint has to hold of it."""
    if not isinstance(weight, AdaptiveWeight):
        return {}
    return {"weight.means": weight.means, "weight.counts": weight.counts}


def forget(weight: Weighting) -> None:
    """Before an optimizer step, which may be one that memory ended the first time."""
    if isinstance(weight, AdaptiveWeight):
        weight.forget()


def moved(weight: Weighting) -> dict[str, float]:
    """After an optimizer step: what was learned of the levels, for the log."""
    if not isinstance(weight, AdaptiveWeight):
        return {}
    weight.after_step()
    return {"weight_spread": float(weight.means.max() / weight.means.min())}


def held_out_errors(weight: Weighting, errors: Tensor, times: Tensor) -> dict[str, float]:
    """`held_out`, and the plain mean error in each quarter of the times: `held_out_75` is the
    noisiest.

    An adaptive weight changes under way and its losses cannot be compared, so that `held_out` is
    then the error by the p2 weight.
    """
    adaptive = isinstance(weight, AdaptiveWeight)
    fixed = diffusion.p2_weight(times) if adaptive else weight(times, errors)
    quarters = (times * 4).long().clamp(max=3)
    return {"held_out": float((fixed * errors).mean())} | {
        f"held_out_{25 * quarter}": float(errors[quarters == quarter].mean())
        for quarter in range(4)
        if bool((quarters == quarter).any())
    }
