"""How images are cropped and resized for a network: FIDs that differ here cannot be compared."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Resize = Literal["clean", "legacy"]
"""The names of clean-fid (arXiv:2104.11222): antialiased, or as in pytorch-fid."""

Crop = Literal["square", "none"]
"""The largest centred square, or the whole image, whose sides are then scaled differently."""

FILTERS: dict[Resize, str] = {
    "clean": "bicubic, antialiased, of floats",
    "legacy": "bilinear, not antialiased, of floats",
}

SIZE_FILTER = "bicubic, antialiased, in 8 bits"
"""By which images are brought to `Preparation.size`, whatever the filter of the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Crop first, then an optional size at which all images are compared, then the network's."""

    resize: Resize = "clean"
    crop: Crop = "square"
    size: int | None = None
    """Pixels, such as 256 for an FID at 256 pixels; the image is stored at it in 8 bits."""

    def __call__(self, image: Image.Image, side: int) -> Tensor:
        """An RGB image to (3, side, side) pixels in [0, 1]."""
        if self.crop == "square":
            image = _centre_square(image)
        if self.size is not None and image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        if image.size == (side, side):
            return _pixels(image)
        if self.resize == "legacy":
            size = (side, side)
            return F.interpolate(_pixels(image)[None], size, mode="bilinear")[0]
        return _resize_floats(image, side)


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, H, W)


def _resize_floats(image: Image.Image, side: int) -> Tensor:
    """Each channel as floats, so that nothing is rounded to 8 bits; what overshoots is clipped."""
    channels = [
        np.asarray(
            Image.fromarray(np.asarray(channel, np.float32)).resize(
                (side, side), Image.Resampling.BICUBIC
            )
        )
        for channel in image.split()
    ]
    return torch.from_numpy(np.stack(channels)).clamp(0, 255) / 255
