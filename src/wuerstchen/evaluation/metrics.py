"""Image metrics and 95 % confidence intervals. B images, R references, pixels in [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.errors import DataError, ModelFolderError
from wuerstchen.geometry import LATENT_STRIDE, SEMANTICS_STRIDE

Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""

BANDS = ("low", "middle", "high")

BAND_EDGES = (1 / (2 * SEMANTICS_STRIDE), 1 / (2 * LATENT_STRIDE))
"""Cycles per pixel between the bands: the Nyquist frequencies of the semantics and the latent.

So `low` (wavelengths of 85 pixels and more) is what the cells of the semantics resolve, `middle`
what their channels must describe and Stage B generates, and `high` (8 pixels and less) what the
channels of the latent must describe and Stage A decodes.
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value, its 95 % confidence interval and the number of samples."""

    value: float
    low: float
    high: float
    n: int

    def interval(self, format_bound: Callable[[float], str]) -> str:
        """The interval as text; a dash for a single sample, which has none."""
        return f"{format_bound(self.low)} to {format_bound(self.high)}" if self.n > 1 else "-"


def mean_estimate(values: Tensor) -> Estimate:
    """The mean of (N,) values with its interval by the normal approximation.

    The interval of a single value is the value itself. Raises DataError if there is none.
    """
    n = len(values)
    if not n:
        raise DataError("Expected at least one image to measure, found none.")
    mean = float(values.double().mean())
    half = Z95 * float(values.double().std()) / n**0.5 if n > 1 else 0.0
    return Estimate(mean, mean - half, mean + half, n)


def fraction_estimate(hits: int, n: int) -> Estimate:
    """The fraction of hits among `n` cases with Wilson's interval (Wilson 1927).

    Raises DataError if there is no case.
    """
    if not n:
        raise DataError("Expected at least one caption to measure, found none.")
    fraction, z2 = hits / n, Z95**2
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * (fraction * (1 - fraction) / n + z2 / (4 * n**2)) ** 0.5
    # Rounding must not push a bound out of [0, 1], nor past the fraction where that is 0 or 1.
    low, high = max(0.0, min(fraction, centre - half)), min(1.0, max(fraction, centre + half))
    return Estimate(fraction, low, high, n)


def finite(images: Tensor) -> Tensor:
    """The same images; raises ModelFolderError if a model generated values that are not finite.

    All distances to such an image would be equal, and the first reference its nearest.
    """
    if not images.isfinite().all():
        raise ModelFolderError(
            "The model generates images with values that are not finite, of which nothing can be "
            "measured; its weights are damaged, or too large for its dtype: convert it to fp32."
        )
    return images


def band_powers(image: Tensor) -> Tensor:
    """(B, 3, H, W) to the (B, 3) power in each of `BANDS`; they sum to the mean square.

    Of the difference of two images, these are the mean squared errors by band (Parseval).
    """
    height, width = image.shape[2:]
    spectrum = torch.fft.fft2(image.double()).abs().square().mean(dim=1)  # (B, H, W)
    frequency = torch.hypot(
        torch.fft.fftfreq(height, dtype=torch.float64)[:, None],
        torch.fft.fftfreq(width, dtype=torch.float64)[None],
    ).to(spectrum.device)  # (H, W), cycles per pixel
    low, high = frequency <= BAND_EDGES[0], frequency >= BAND_EDGES[1]
    masks = torch.stack([low, ~low & ~high, high]).to(spectrum.dtype)  # (3, H, W)
    return torch.einsum("bhw,khw->bk", spectrum, masks) / (height * width) ** 2


def band_contrasts(image: Tensor) -> Tensor:
    """`band_powers` without the mean brightness of each image."""
    return band_powers(image - image.mean(dim=(2, 3), keepdim=True))


def thumbnails(images: Tensor, side: int = 32) -> Tensor:
    """(B, 3, H, W) pixels to (B, 3, side, side), antialiased."""
    size = (side, side)
    if images.shape[2:] == size:
        return images.float()
    return F.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(0, 1)


def nearest(images: Tensor, references: Tensor, side: int = 32) -> Tensor:
    """(B, R) indices of the references for every image, nearest first.

    The distance is L2 between RGB thumbnails. References may be thumbnails already, so that large
    sets fit in memory. Equally near ones are in random order: copies of an image in several groups
    would otherwise favour the first of these.
    """
    queries = thumbnails(images, side).flatten(1).double()  # (B, 3 side^2)
    others = thumbnails(references, side).flatten(1).double()  # (R, 3 side^2)
    shuffled = torch.randperm(len(others), generator=torch.Generator().manual_seed(0))
    return shuffled[torch.cdist(queries, others[shuffled]).argsort(dim=1, stable=True)]
