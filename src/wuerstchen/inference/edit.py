"""An edit as a caller requests it: images, strengths and a mask, checked before any work.

B images, H x W pixels of the caller's images; the stages work at another size where theirs is none
that they can have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.errors import ConfigError
from wuerstchen.geometry import Shape, check_size
from wuerstchen.inference.cascade import Cascade
from wuerstchen.inference.images import (
    ImageInput,
    fitted,
    nearest_size,
    pixels_of,
    resized,
    working_size,
)
from wuerstchen.inference.source import Source, checked_strengths

IMAGE_STRENGTHS = (0.8, 1.0)
"""Of Stages C and B where an image is changed as a whole; a mask's are 1, so that what it covers is
new."""

ASPECT_ROUNDING = 0.02
"""Largest relative difference of the aspect ratios of a mask and its image."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; bottom and right are outside of it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> Shape:
        return Shape(self.bottom - self.top, self.right - self.left)

    def of(self, image: Tensor) -> Tensor:
        """The (..., H, W) image within the box, as a view."""
        return image[..., self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Images to start from, and what becomes of them."""

    images: list[Tensor]
    """(3, H, W) pixels in [0, 1] each; with a mask all of one size."""
    size: Shape
    """At which the stages work."""
    strength: float
    decoder_strength: float
    masks: list[Tensor]
    """(1, H, W) each, one for all images or one each; empty: images are changed as a whole."""
    box: Box | None
    """What the stages see of masked images."""

    @classmethod
    def requested(
        cls,
        model_size: int,
        image: ImageInput,
        *,
        strength: float | None = None,
        decoder_strength: float | None = None,
        mask_image: ImageInput | None = None,
        padding_mask_crop: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Self:
        """Arguments of the pipeline; raises ConfigError and SizeError for what cannot work."""
        default = IMAGE_STRENGTHS if mask_image is None else (1.0, 1.0)
        strengths = checked_strengths(strength, decoder_strength, default=default)
        images, masks, box = pixels_of(image), [], None
        shape = Shape(*images[0].shape[1:])
        usual = working_size(shape, model_size)
        if mask_image is not None:
            masks = _masks(mask_image, images)
            box = Box(0, 0, *shape)
            if padding_mask_crop is not None:
                box = _around(masks, padding_mask_crop)
                usual = nearest_size(box.shape, model_size)
        elif padding_mask_crop is not None:
            raise ConfigError("padding_mask_crop is the margin around a mask; pass mask_image too.")
        size = Shape(height or usual.height, width or usual.width)
        check_size(*size)
        if box is not None and padding_mask_crop is not None:
            box = _with_aspect(box, size, shape)
        return cls(
            images=images,
            size=size,
            strength=strengths[0],
            decoder_strength=strengths[1],
            masks=masks,
            box=box,
        )

    def check(self, cascade: Cascade) -> None:
        """Raise ConfigError for a model without the compressor that this edit needs."""
        if self.decoder_strength > 0 and (self.strength < 1 or self.masks):
            cascade.checked_compressor()

    def source(self, count: int) -> Source:
        """What the stages start from, for `count` images."""
        if self.box is None:
            seen, mask = [fitted(image, self.size) for image in self.images], None
        else:
            seen = [resized(self.box.of(image), self.size) for image in self.images]
            pooled = [F.adaptive_max_pool2d(self.box.of(mask), self.size) for mask in self.masks]
            mask = _repeated(pooled, count)
        return Source(
            image=_repeated(seen, count),
            strength=self.strength,
            decoder_strength=self.decoder_strength,
            mask=mask,
        )

    def finished(self, result: Tensor) -> Tensor:
        """(B, 3, H, W) results of the stages; with a mask on the images, whose size they get.

        Where a mask is 0 a pixel is that of the image, bit for bit.
        """
        if self.box is None:
            return result
        whole = _repeated(self.images, len(result)).to(result)  # a copy
        masks = _repeated(self.masks, len(result)).to(result.device)
        new = torch.stack([resized(image, self.box.shape) for image in result])
        part = self.box.of(whole)
        part.copy_(torch.where(self.box.of(masks) > 0, new, part))
        return whole


def check_no_image(**arguments: object) -> None:
    """Raise ConfigError for an argument that only an image gives a meaning."""
    for name, value in arguments.items():
        if value is not None:
            raise ConfigError(f"{name} is about an image to start from; pass image= too.")


def _repeated(images: Sequence[Tensor], count: int) -> Tensor:
    """(count, C, H, W), the copies of the first image first."""
    if count % len(images):
        raise ConfigError(
            f"Expected one image for all results, or one for each prompt, found {len(images)} for "
            f"{count}."
        )
    return torch.stack(list(images)).repeat_interleave(count // len(images), dim=0)


def _masks(given: ImageInput, images: list[Tensor]) -> list[Tensor]:
    masks = pixels_of(given, "mask_image", channels=1)
    shape = images[0].shape[1:]
    if any(image.shape[1:] != shape for image in images):
        raise ConfigError("Images with a mask must have one size; edit the others in other calls.")
    if len(masks) not in (1, len(images)):
        raise ConfigError(
            f"mask_image must be one mask, or one for each of {len(images)} images, "
            f"found {len(masks)}."
        )
    for mask in masks:
        height, width = mask.shape[1:]
        if abs(height * shape[1] / (width * shape[0]) - 1) > ASPECT_ROUNDING:
            raise ConfigError(
                f"mask_image must have the shape of image, {shape[1]} x {shape[0]} pixels, found "
                f"{width} x {height}; resize or crop it."
            )
        if not bool((mask > 0).any()):
            raise ConfigError(
                "mask_image is black everywhere: white is what is painted anew; invert the mask, "
                "or leave it out to change the whole image."
            )
    return [
        mask if mask.shape[1:] == shape else F.adaptive_max_pool2d(mask, shape) for mask in masks
    ]


def _around(masks: list[Tensor], padding: int) -> Box:
    """The rectangle around all that the masks cover, with a margin."""
    if padding < 0:
        raise ConfigError(f"padding_mask_crop must be at least 0 pixels, found {padding}.")
    covered = torch.stack(masks).amax(dim=(0, 1)) > 0  # (H, W)
    rows, columns = covered.any(dim=1).nonzero(), covered.any(dim=0).nonzero()
    height, width = covered.shape
    return Box(
        top=max(int(rows[0]) - padding, 0),
        left=max(int(columns[0]) - padding, 0),
        bottom=min(int(rows[-1]) + 1 + padding, height),
        right=min(int(columns[-1]) + 1 + padding, width),
    )


def _with_aspect(box: Box, size: Shape, image: Shape) -> Box:
    """The box, enlarged within the image to the aspect ratio of `size` as far as there is room."""
    rows, columns = box.shape
    height = min(max(rows, round(columns * size.height / size.width)), image.height)
    width = min(max(columns, round(rows * size.width / size.height)), image.width)
    top = min(max(box.top - (height - rows) // 2, 0), image.height - height)
    left = min(max(box.left - (width - columns) // 2, 0), image.width - width)
    return Box(top, left, top + height, left + width)
