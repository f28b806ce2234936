"""One image of a source, made ready to be stored: small, upright, in sRGB, with its looks."""

import hashlib
import io
from math import ceil
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from wuerstchen.config import PrepareConfig
from wuerstchen.data.images import PixelLimitError, nearest_bucket, open_image, resize_and_crop
from wuerstchen.data.items import ByteRange
from wuerstchen.errors import DataError
from wuerstchen.geometry import Shape, bucket_shapes
from wuerstchen.prepare.filters import trouble_with_size

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}


class Stored(NamedTuple):
    """An image as its bytes and what the index says of it."""

    data: bytes
    width: int
    height: int
    source_width: int
    source_height: int
    hash: str
    """SHA-256 of the bytes."""
    look: int
    """64 bits that hardly change when an image is scaled, stored again or made brighter."""
    tint: bytes
    """32 bytes: the mean Cb and Cr of 4 x 4 fields. The hash of the look knows no colours."""


def store_image(place: ByteRange, config: PrepareConfig) -> Stored | str:
    """The image as it will be stored, or why it is dropped."""
    try:
        data = place.read()
    except (OSError, DataError):  # also where a prepared set has other bytes than it knows
        return "file cannot be read"
    try:
        opened = open_image(data, config.size, config.background)
    except PixelLimitError:
        return "image over the pixel limit"
    except DataError:
        return "image does not decode"
    trouble = trouble_with_size(opened.width, opened.height, config.filters)
    if trouble is not None:
        return trouble
    image = resize_and_crop(opened.image, *stored_size(*opened.image.size, config))
    content = _encode(image, config)
    return Stored(
        data=content,
        width=image.width,
        height=image.height,
        source_width=opened.width,
        source_height=opened.height,
        hash=hashlib.sha256(content).hexdigest(),
        look=look_of(image),
        tint=tint_of(image),
    )


def stored_size(width: int, height: int, config: PrepareConfig) -> tuple[int, int]:
    """Width and height to store: never larger than the source has.

    With the aspect ratio kept, the square and the nearest of the shapes of `bucket_shapes` can both
    be cut from it without enlarging it; so can those of all smaller sizes.
    """
    if config.shape == "square":
        side = min(width, height, config.size)
        return side, side
    shapes = bucket_shapes(config.size)
    nearest = shapes[int(nearest_bucket(np.array([width]), np.array([height]), shapes)[0])]
    needed = (Shape(config.size, config.size), nearest)
    scale = max(max(shape.width / width, shape.height / height) for shape in needed)
    if scale >= 1:
        return width, height
    return _at_least(width * scale), _at_least(height * scale)


def _at_least(side: float) -> int:
    """Whole pixels, of which half a one would be missing if it were rounded down."""
    return ceil(side - 1e-6)  # 256.0000001 is an error of the arithmetic


def look_of(image: Image.Image) -> int:
    """The perceptual hash: signs of the low frequencies of the grey image (ImageHash's phash)."""
    bits: np.ndarray = imagehash.phash(image).hash.flatten()
    return int(np.packbits(bits).view(">u8")[0])


def tint_of(image: Image.Image) -> bytes:
    """Mean Cb and Cr of 4 x 4 fields, a byte each."""
    fields = image.convert("YCbCr").resize((4, 4), Image.Resampling.BOX)
    return np.asarray(fields)[:, :, 1:].tobytes()


def _encode(image: Image.Image, config: PrepareConfig) -> bytes:
    buffer = io.BytesIO()
    match config.format:
        case "jpeg":  # without subsampling, which blurs red edges
            image.save(buffer, "JPEG", quality=config.quality, subsampling=0)
        case "webp":
            image.save(buffer, "WEBP", quality=config.quality)
        case "png":
            image.save(buffer, "PNG")
    return buffer.getvalue()
