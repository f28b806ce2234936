"""Figures of merit and their 95 % intervals. B images, R references, pixels in [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.decibels import decibels

Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, how many cases it is from, and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float
    n: int

    def interval(self, shown: Callable[[float], str]) -> str:
        """Its bounds for people, or a dash where a single case says nothing of the others."""
        return f"{shown(self.low)} to {shown(self.high)}" if self.n > 1 else "-"


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratios in dB of (B, 3, H, W) pixels in [0, 1]; at most 100."""
    return decibels((image.double() - reference.double()).square().mean(dim=(1, 2, 3)))


def thumbnails(images: Tensor, side: int = 32) -> Tensor:
    """(B, 3, H, W) pixels to (B, 3, side, side), antialiased."""
    size = (side, side)
    if images.shape[2:] == size:
        return images.float()
    return F.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(0, 1)


def nearest(images: Tensor, references: Tensor, side: int = 32) -> Tensor:
    """(B, R) indices of the references of every image, the nearest first.

    Distance is L2 between RGB thumbnails. References that are thumbnails already stay as they
    are, so large sets can be handed over small.
    """
    points = thumbnails(images, side).flatten(1).double()  # (B, 3 side^2)
    others = thumbnails(references, side).flatten(1).double()  # (R, 3 side^2)
    return torch.cdist(points, others).argsort(dim=1, stable=True)


def mean_figure(values: Tensor) -> Figure:
    """The mean of (N,) values and its interval by the normal approximation.

    A single value says nothing of its spread; its interval is the value alone.
    """
    mean, n = float(values.mean()), len(values)
    half = Z95 * float(values.double().std()) / n**0.5 if n > 1 else 0.0
    return Figure(mean, mean - half, mean + half, n)


def share_figure(hits: int, n: int) -> Figure:
    """The share of `n` cases that hit, with Wilson's interval (Wilson 1927)."""
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n**2)) ** 0.5
    # Rounding must push no bound out of [0, 1], nor across the share where that is 0 or 1.
    low, high = max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
    return Figure(share, low, high, n)
