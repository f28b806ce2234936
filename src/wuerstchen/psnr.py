"""Peak signal-to-noise ratio of images."""

from torch import Tensor

MIN_MSE = 1e-10
"""Smaller errors count as this, so that a perfect copy has 100 dB and means stay finite."""


def psnr_from_mse(errors: Tensor) -> Tensor:
    """Mean squared errors of any shape to PSNR in dB, at most 100."""
    return -10 * errors.double().clamp_min(MIN_MSE).log10()


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratios in dB of (B, 3, H, W) pixels in [0, 1]; at most 100."""
    return psnr_from_mse((image.double() - reference.double()).square().mean(dim=(1, 2, 3)))
