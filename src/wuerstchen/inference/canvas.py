"""Larger canvases around an image, whose new parts are generated: outpainting."""

import numpy as np
from PIL import Image, ImageOps

from wuerstchen.errors import ConfigError


def larger_canvas(
    image: Image.Image, *, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0
) -> tuple[Image.Image, Image.Image]:
    """The image with new parts at its sides, in pixels, and the mask that is white in them.

    Until they are generated the new parts continue the pixels at the image's edges. Raises
    ConfigError unless a side is added, and for negative ones.
    """
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    for name, added in sides.items():
        if added < 0:
            raise ConfigError(f"{name} must be at least 0 pixels, found {added}.")
    if not any(sides.values()):
        raise ConfigError("A larger canvas needs pixels on at least one of its sides.")
    pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))  # (H, W, 3)
    around = ((top, bottom), (left, right))
    canvas = np.pad(pixels, (*around, (0, 0)), mode="edge")
    kept = np.zeros(pixels.shape[:2], dtype=np.uint8)
    return (
        Image.fromarray(canvas),
        Image.fromarray(np.pad(kept, around, constant_values=255)),
    )
