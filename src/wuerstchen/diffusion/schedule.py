"""How much of an image is left at each time, and what training makes of it."""

from math import acos, cos, exp, log, pi

import torch
from torch import Tensor

OFFSET = 0.008
"""Keeps the first steps of the cosine schedule from being too small (arXiv:2102.09672, eq. 17)."""

LEAST, MOST = 0.0001, 0.9999
"""signal(t) is clamped to this range: t = 1 keeps a trace of data, t = 0 a trace of noise."""

STEEPEST = 10.0
"""Cap of `data_weight`, reached at t = 0.8."""

LATE = 0.6
"""Above this time the semantics of an image are decided by its caption (docs/log.md)."""

START = cos(OFFSET / (1 + OFFSET) * (pi / 2)) ** 2
"""The cosine's square at t = 0, which makes signal(0) one but for the clamp."""


def signal(t: Tensor) -> Tensor:
    """Share of signal variance at times t: the cosine schedule (arXiv:2102.09672), clamped."""
    angle = (t + OFFSET) / (1 + OFFSET) * (pi / 2)
    return (angle.cos().square() / START).clamp(LEAST, MOST)


def signal_at(t: float) -> float:
    """`signal` of one time, in double precision."""
    angle = (t + OFFSET) / (1 + OFFSET) * (pi / 2)
    return min(max(cos(angle) ** 2 / START, LEAST), MOST)


def log_snr_at(t: float) -> float:
    """Logarithm of signal over noise, log(signal / (1 - signal)): from -9.21 at 1 to 9.21 at 0."""
    share = signal_at(t)
    return log(share / (1 - share))


def time_of(log_snr: float) -> float:
    """The time that has this log-SNR: the inverse of `log_snr_at`.

    Where the clamp makes one log-SNR of many times, and beyond it, the outermost: 1 or 0.
    """
    if log_snr <= log_snr_at(1):
        return 1.0
    if log_snr >= log_snr_at(0):
        return 0.0
    share = 1 / (1 + exp(-log_snr))
    return acos((share * START) ** 0.5) / (pi / 2) * (1 + OFFSET) - OFFSET


def add_noise(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The state of `data` at (B,) times t: both shares together keep unit variance."""
    share = signal(t).view(-1, *(1 for _ in data.shape[1:]))  # (B, 1, 1, 1)
    return share.sqrt() * data + (1 - share).sqrt() * noise


def p2_weight(t: Tensor) -> Tensor:
    """Loss weight 1 / (1 + SNR) = 1 - signal(t) (arXiv:2204.00227 with k = gamma = 1).

    The paper prints (1 - signal) / (1 + signal); the code that trained the weights has this.
    """
    return 1 - signal(t)


def data_weight(t: Tensor) -> Tensor:
    """Loss weight (1 - signal) / signal: squared error of the data that the noise implies.

    At most `STEEPEST` times the p2 weight, which has it fade out where nearly all is noise. It
    makes a small model learn from its condition sooner than p2 does (docs/log.md).
    """
    return (1 - signal(t)) * (1 / signal(t)).clamp(max=STEEPEST)


def training_times(uniform: Tensor, late: float | None = None) -> Tensor:
    """(B,) uniform draws from [0, 1) to training times in [0.001, 1].

    About 7.5 % of them lie at exactly 1, so that the start of sampling is well trained.

    late  share of the times above `LATE`, in (0, 1); None: as published, about 45 %
    """
    published = 1 - (LATE - 0.001) / 1.08  # share of the draws whose time lies above LATE
    if late is not None:
        above = uniform * (published / late)
        below = published + (uniform - late) * ((1 - published) / (1 - late))
        uniform = torch.where(uniform < late, above, below)
    return (1.08 * (1 - uniform) + 0.001).clamp(0.001, 1)
