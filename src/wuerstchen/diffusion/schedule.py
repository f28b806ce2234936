"""The noise schedule, and the times and loss weights that training derives from it."""

from math import acos, cos, exp, log, pi

import torch
from torch import Tensor

OFFSET = 0.008
"""Keeps the first steps of the cosine schedule from being too small (arXiv:2102.09672, eq. 17)."""

LEAST, MOST = 0.0001, 0.9999
"""alpha_bar(t) is clamped to this range: t = 1 keeps a trace of data, t = 0 a trace of noise."""

MAX_DATA_WEIGHT = 10.0
"""Cap of `data_weight`, reached at t = 0.8."""

HIGH_NOISE_TIME = 0.6
"""Above this time the caption decides the semantics of an image (docs/log.md)."""

START = cos(OFFSET / (1 + OFFSET) * (pi / 2)) ** 2
"""The squared cosine at t = 0, which normalises alpha_bar(0) to 1 before the clamp."""


def alpha_bar(t: Tensor) -> Tensor:
    """Fraction of data variance at times t: the cosine schedule (arXiv:2102.09672), clamped."""
    angle = (t + OFFSET) / (1 + OFFSET) * (pi / 2)
    return (angle.cos().square() / START).clamp(LEAST, MOST)


def alpha_bar_at(t: float) -> float:
    """`alpha_bar` of a single time, in double precision."""
    angle = (t + OFFSET) / (1 + OFFSET) * (pi / 2)
    return min(max(cos(angle) ** 2 / START, LEAST), MOST)


def alpha_sigma(t: float) -> tuple[float, float]:
    """Factors of the data and of the noise in a state at time t."""
    a_bar = alpha_bar_at(t)
    return a_bar**0.5, (1 - a_bar) ** 0.5


def log_snr_at(t: float) -> float:
    """log(alpha_bar / (1 - alpha_bar)): from -9.21 at t = 1 to 9.21 at t = 0."""
    a_bar = alpha_bar_at(t)
    return log(a_bar / (1 - a_bar))


def time_of(log_snr: float) -> float:
    """The time with this log-SNR: the inverse of `log_snr_at`; 1 or 0 where the clamp applies."""
    if log_snr <= log_snr_at(1):
        return 1.0
    if log_snr >= log_snr_at(0):
        return 0.0
    a_bar = 1 / (1 + exp(-log_snr))
    return acos((a_bar * START) ** 0.5) / (pi / 2) * (1 + OFFSET) - OFFSET


def add_noise(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The state of (B, ...) `data` at (B,) times t; its variance stays that of the data."""
    a_bar = alpha_bar(t).view(-1, *(1 for _ in data.shape[1:]))  # (B, 1, 1, 1)
    return a_bar.sqrt() * data + (1 - a_bar).sqrt() * noise


def p2_weight(t: Tensor) -> Tensor:
    """Loss weight 1 / (1 + SNR) = 1 - alpha_bar (arXiv:2204.00227 with k = gamma = 1).

    As in the released code; the Würstchen paper prints (1 - alpha_bar) / (1 + alpha_bar).
    """
    return 1 - alpha_bar(t)


def data_weight(t: Tensor) -> Tensor:
    """Loss weight (1 - alpha_bar) / alpha_bar: squared error of the data implied by the noise.

    Capped at `MAX_DATA_WEIGHT` times the p2 weight, so that it vanishes where nearly all is noise.
    With it a small model learns to use its condition sooner than with p2 (docs/log.md).
    """
    return (1 - alpha_bar(t)) * (1 / alpha_bar(t)).clamp(max=MAX_DATA_WEIGHT)


def training_times(uniform: Tensor, late: float | None = None) -> Tensor:
    """(B,) uniform samples from [0, 1) to training times in [0.001, 1].

    About 7.5 % are exactly 1, so that the start of sampling is well trained.

    late  fraction of times above `HIGH_NOISE_TIME`, in (0, 1); None: as published, about 45 %
    """
    published = (
        1 - (HIGH_NOISE_TIME - 0.001) / 1.08
    )  # fraction of samples whose time is above HIGH_NOISE_TIME
    if late is not None:
        above = uniform * (published / late)
        below = published + (uniform - late) * ((1 - published) / (1 - late))
        uniform = torch.where(uniform < late, above, below)
    return (1.08 * (1 - uniform) + 0.001).clamp(0.001, 1)
