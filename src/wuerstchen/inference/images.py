"""Images in the forms in which callers pass and receive them: Pillow images, arrays, tensors.

B images, H x W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from wuerstchen.errors import ConfigError
from wuerstchen.geometry import SIZE_STEP, Shape

Images = list[Image.Image] | NDArray[np.float32] | Tensor

OneInput = Image.Image | NDArray[np.uint8] | NDArray[np.float32] | Tensor
ImageInput = OneInput | Sequence[OneInput]
"""One image or several: Pillow images; (H, W, 3) or (B, H, W, 3) arrays, of 8 bits or in [0, 1];
(3, H, W) or (B, 3, H, W) tensors in [0, 1]. Masks have one channel, or no dimension for it."""


def converted(result: Tensor, output_type: str) -> Images:
    """(B, 3, H, W) pixels in [0, 1], or latents, in the form `output_type` names."""
    if output_type in ("pt", "latent"):
        return result
    pixels: NDArray[np.float32] = result.float().cpu().permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
    if output_type == "np":
        return pixels
    return [Image.fromarray((row * 255).round().astype(np.uint8)) for row in pixels]


def pixels_of(given: ImageInput, name: str = "image", channels: int = 3) -> list[Tensor]:
    """(channels, H, W) pixels in [0, 1] of each image, which may differ in size.

    Transparent pixels of Pillow images show white, and those of masks (one channel) black. Raises
    ConfigError for anything else.
    """
    if isinstance(given, Image.Image):
        return [_of_pillow(given, channels)]
    if isinstance(given, np.ndarray | Tensor):
        return _of_numbers(given, name, channels)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        found = "an empty list" if given == [] else f"{type(given).__name__}"
        raise ConfigError(
            f"{name} must be a Pillow image, an array, a tensor or a list of them, found {found}; "
            "open a file with PIL.Image.open."
        )
    return [row for one in given for row in pixels_of(one, name, channels)]


def fitted(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A (C, H, W) image, cropped in its centre to the shape of `size` and resized to it."""
    height, width = image.shape[1:]
    scale = min(height / size[0], width / size[1])
    rows, columns = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    return resized(image[:, top : top + rows, left : left + columns], size)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A (C, H, W) image at this size, with antialiasing; itself if it has that size."""
    if image.shape[1:] == size:
        return image
    large = F.interpolate(image[None], size, mode="bicubic", antialias=True)
    return large[0].clamp(0, 1)


def working_size(image: tuple[int, int], model: int) -> Shape:
    """Height and width at which an image is worked on: its own where the stages allow it.

    Otherwise the nearest ones.
    """
    height, width = image
    fits = height % SIZE_STEP == 0 and width % SIZE_STEP == 0
    return Shape(height, width) if fits else nearest_size(image, model)


def nearest_size(image: tuple[int, int], model: int) -> Shape:
    """Sides nearest to the shape of an image, with about as many pixels as the model's own size."""
    height, width = image
    scale = (model * model / (height * width)) ** 0.5
    sides = (max(1, round(side * scale / SIZE_STEP)) * SIZE_STEP for side in image)
    return Shape(*sides)


def _of_pillow(image: Image.Image, channels: int) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white" if channels == 3 else "black")
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    pixels = np.array(image.convert("RGB" if channels == 3 else "L"), ndmin=3)
    rows = torch.from_numpy(pixels.reshape(image.height, image.width, channels))
    return rows.permute(2, 0, 1).float() / 255


def _of_numbers(given: NDArray[np.generic] | Tensor, name: str, channels: int) -> list[Tensor]:
    shape = tuple(given.shape)
    array = isinstance(given, np.ndarray)
    pixels = (
        torch.from_numpy(given.copy()) if isinstance(given, np.ndarray) else given.detach().cpu()
    )
    if channels == 1 and pixels.ndim == 2:
        pixels = pixels[None]
    elif array and pixels.ndim in (3, 4) and pixels.shape[-1] == channels:
        pixels = pixels.movedim(-1, -3)
    if pixels.ndim not in (3, 4) or pixels.shape[-3] != channels or 0 in pixels.shape:
        form = f"H, W, {channels}" if array else f"{channels}, H, W"
        raise ConfigError(
            f"{name} must be ({form}), or several with the number of images in front, "
            f"found {shape}."
        )
    pixels = pixels.float() / 255 if pixels.dtype in (torch.uint8, torch.bool) else pixels.float()
    if given.dtype in (torch.bool, np.bool_):
        pixels = pixels * 255
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):  # NaN is refused too
        low, high = float(pixels.min()), float(pixels.max())
        raise ConfigError(
            f"{name} must have numbers in [0, 1], found {low:.3g} to {high:.3g}; "
            "divide 8-bit values by 255, and map [-1, 1] by (x + 1) / 2."
        )
    return list(pixels) if pixels.ndim == 4 else [pixels]
