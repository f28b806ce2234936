"""Peak signal-to-noise ratios: mean squared errors of pixels in [0, 1] as decibels."""

from torch import Tensor

LEAST_ERROR = 1e-10
"""Errors below count as this, so that a perfect copy has 100 dB and means stay finite."""


def decibels(errors: Tensor) -> Tensor:
    """Mean squared errors of any shape to dB, at most 100."""
    return -10 * errors.double().clamp_min(LEAST_ERROR).log10()
