"""Training objectives of Stage B: prediction target, loss weight and distribution of times.

A state is x = alpha data + sigma noise, with alpha^2 = alpha_bar. The head of Stage B outputs two
maps, a and the logits of b. All losses are weighted squared errors of the data, so that objectives
differ in their weights alone: the squared error of the noise is SNR times that of the data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from benchmarks.studies.stage_b_targets.fixed_divisor import divisor_logit
from wuerstchen import diffusion
from wuerstchen.diffusion.schedule import MAX_DATA_WEIGHT, OFFSET, START
from wuerstchen.models.stage_b import DIVISOR_MARGIN

Head = Literal["published", "fixed", "data", "v"]
"""published: noise = (x - a) / b with b learned; fixed: the same with b fixed at sigma, and the
loss compares a with alpha data; data: a is the data; v: a is v = alpha noise - sigma data. The last
two ignore the logits of b."""

HEADS: tuple[Head, ...] = get_args(Head)

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "p2": lambda a_bar: a_bar,
    "capped": lambda a_bar: (a_bar * MAX_DATA_WEIGHT).clamp(max=1),
    "plain": torch.ones_like,
    "v": lambda a_bar: 1 / (1 - a_bar),
    "min-snr": lambda a_bar: (a_bar / (1 - a_bar)).clamp(max=5),
    "sqrt": lambda a_bar: a_bar.sqrt(),
}
"""(B,) alpha_bar to (B,) weights of the data's squared error. p2: the published loss; capped:
`data_weight`; plain: unweighted; v: the error of v; min-snr: arXiv:2303.09556."""


@dataclass(frozen=True)
class Objective:
    """One way of training Stage B."""

    head: Head
    weight: str
    """A key of `WEIGHTS`."""
    times: str
    """`published`; `shift:K`, the published times at K times the noise-to-signal ratio; or
    `normal:MEAN:STD`, with sigma / (alpha + sigma) logit-normal."""
    divisor_weight: float = 0.0
    """Weight of the squared error of b's logits against sigma's; for the published head."""
    noise_only: float = 0.0
    """Fraction of images whose time is 1."""


def training_times(objective: Objective, uniform: Tensor, normal: Tensor, other: Tensor) -> Tensor:
    """(B,) training times from (B,) uniform, normal and more uniform samples."""
    kind, *numbers = objective.times.split(":")
    if kind == "published":
        t = diffusion.training_times(uniform)
    elif kind == "shift":
        a_bar = diffusion.alpha_bar(diffusion.training_times(uniform))
        t = time_of_ratio(((1 - a_bar) / a_bar).sqrt() * float(numbers[0]))
    else:
        mean, std = map(float, numbers)
        t = time_of_ratio((mean + std * normal).exp())
    return torch.where(other < objective.noise_only, torch.ones_like(t), t)


def time_of_ratio(ratio: Tensor) -> Tensor:
    """(B,) times with these sigma / alpha; 0 or 1 outside the clamped schedule."""
    a_bar = 1 / (1 + ratio.square())
    angle = (a_bar * START).sqrt().clamp(max=1).acos()
    t = angle / (math.pi / 2) * (1 + OFFSET) - OFFSET
    t = torch.where(a_bar <= diffusion.LEAST, torch.ones_like(t), t)
    return t.clamp(0, 1)


def alpha_sigma(t: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, 1, 1) alpha and sigma at (B,) times."""
    a_bar = diffusion.alpha_bar(t).view(-1, 1, 1, 1)
    return a_bar.sqrt(), (1 - a_bar).sqrt()


def data_of(objective: Objective, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """(B, 4, H, W) data predicted by the head's (B, 8, H, W) output."""
    a, b = output.float().chunk(2, dim=1)
    alpha, sigma = alpha_sigma(t)
    if objective.head == "data":
        return a
    if objective.head == "v":
        return alpha * x - sigma * a
    if objective.head == "fixed":
        return a / alpha
    return (x - sigma * (x - a) / _divisor(b)) / alpha


def noise_of(objective: Objective, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """(B, 4, H, W) noise for samplers; for published and fixed heads as Stage B computes it."""
    if objective.head in ("published", "fixed"):
        a, b = output.float().chunk(2, dim=1)
        return (x - a) / _divisor(b)
    alpha, sigma = alpha_sigma(t)
    return (x - alpha * data_of(objective, output, x, t)) / sigma


def loss_of(objective: Objective, output: Tensor, x: Tensor, t: Tensor, data: Tensor) -> Tensor:
    """Mean loss of a batch."""
    error = (data_of(objective, output, x, t) - data).square().mean(dim=(1, 2, 3))
    loss = (WEIGHTS[objective.weight](diffusion.alpha_bar(t)) * error).mean()
    if objective.divisor_weight:
        b = output.float().chunk(2, dim=1)[1]
        _, sigma = alpha_sigma(t)
        loss = loss + objective.divisor_weight * (b - divisor_logit(sigma)).square().mean()
    return loss


def _divisor(b: Tensor) -> Tensor:
    return b.sigmoid() * (1 - 2 * DIVISOR_MARGIN) + DIVISOR_MARGIN
