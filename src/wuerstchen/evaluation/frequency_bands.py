"""Images and their errors by the size of what they show. B images, H x W pixels."""

import torch
from torch import Tensor

from wuerstchen.geometry import LATENT_STRIDE, SEMANTICS_STRIDE

BANDS = ("low", "middle", "high")

EDGES = (1 / (2 * SEMANTICS_STRIDE), 1 / (2 * LATENT_STRIDE))
"""Cycles per pixel between the bands: no grid holds finer waves than two of its cells long.

So `low` (waves of 85 pixels and more) is what the semantics can hold cell by cell, `middle` what
their channels must describe and Stage B draws, and `high` (8 pixels and less) what the channels of
the latent must describe and Stage A draws.
"""


def band_powers(image: Tensor) -> Tensor:
    """(B, 3, H, W) to the (B, 3) mean squares in each of `BANDS`; they add up to the mean square.

    Of the difference of two images these are its mean squared errors by band (Parseval).
    """
    height, width = image.shape[2:]
    waves = torch.fft.fft2(image.double()).abs().square().mean(dim=1)  # (B, H, W)
    frequency = torch.hypot(
        torch.fft.fftfreq(height, dtype=torch.float64)[:, None],
        torch.fft.fftfreq(width, dtype=torch.float64)[None],
    ).to(waves.device)  # (H, W), cycles per pixel
    low, high = frequency <= EDGES[0], frequency >= EDGES[1]
    masks = torch.stack([low, ~low & ~high, high]).to(waves.dtype)  # (3, H, W)
    return torch.einsum("bhw,khw->bk", waves, masks) / (height * width) ** 2


def contrast_powers(image: Tensor) -> Tensor:
    """`band_powers` without the brightness of each image, which is no contrast."""
    return band_powers(image - image.mean(dim=(2, 3), keepdim=True))
