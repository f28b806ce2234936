"""Time steps of a sampling run: lists of strictly falling times from exactly 1 to exactly 0."""

from collections.abc import Callable

import torch

from wuerstchen.diffusion.schedule import log_snr_at, time_of

TUNED_MIX = 0.5
"""`tuned_times` between uniform in t (0) and in log-SNR (1), measured on a 128-pixel model."""

DATA_TIMES = (1.0, 0.3, 0.0)
"""The best two evaluations of a small Stage B that predicts the data (docs/log.md): at middle times
it would follow patches of the noisy state more than the semantics."""


def uniform_times(steps: int) -> list[float]:
    """`steps` + 1 evenly spaced times from 1 to 0; in fp32 they are those of diffusers.

    Its `torch.linspace` is one bit off the nearest number at 12, 60 and other counts; where it is
    not, 0.6 is 0.6.
    """
    even = _even_times(steps)
    stride = _fp32([1 / steps])[0]
    half = (steps + 1) // 2  # linspace counts from both ends
    ramp = [1 - stride * k if k < half else stride * (steps - k) for k in range(steps + 1)]
    pairs = zip(even, _fp32(even), _fp32(ramp), strict=True)
    return [exact if nearest == theirs else theirs for exact, nearest, theirs in pairs]


def _even_times(steps: int) -> list[float]:
    return [(steps - k) / steps for k in range(steps + 1)]


def _fp32(values: list[float]) -> list[float]:
    return torch.tensor(values, dtype=torch.float32).tolist()


def published_times() -> list[float]:
    """The released 29-evaluation list of Stage C: dense at high noise, coarse at low noise."""
    return [(57 - k) / 57 for k in range(20)] + [(9 - k) / 15 for k in range(10)]


def log_snr_times(steps: int) -> list[float]:
    """`steps` + 1 times evenly spaced in log-SNR (clamped): dense near 1 and 0, sparse between."""
    noisiest, cleanest = log_snr_at(1), log_snr_at(0)
    rise = (cleanest - noisiest) / steps
    return [1.0, *(time_of(noisiest + k * rise) for k in range(1, steps)), 0.0]


def tuned_times(steps: int) -> list[float]:
    """`steps` + 1 times interpolated between even and `log_snr_times`, by `TUNED_MIX`."""
    pairs = zip(_even_times(steps), log_snr_times(steps), strict=True)
    return [even + TUNED_MIX * (by_ratio - even) for even, by_ratio in pairs]


TIMES: dict[str, Callable[[int], list[float]]] = {
    "time": uniform_times,
    "log_snr": log_snr_times,
    "tuned": tuned_times,
}
"""Spacings for any number of steps; `published_times` has one length."""
