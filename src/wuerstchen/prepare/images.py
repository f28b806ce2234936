"""Process one image of a source for storage: decode, resize, encode and hash it."""

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
from wuerstchen.prepare.filters import size_problem

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}


class StoredImage(NamedTuple):
    """An encoded image and its columns in the index."""

    data: bytes
    width: int
    height: int
    source_width: int
    source_height: int
    hash: str
    """SHA-256 of the bytes."""
    perceptual_hash: int
    """64 bits that hardly change if an image is resized, encoded again or made brighter."""
    chroma: bytes
    """Mean Cb and Cr on a 4 x 4 grid, 32 bytes: the perceptual hash ignores colour."""


def store_image(file: ByteRange, config: PrepareConfig) -> StoredImage | str:
    """The image as it will be stored, or why it is dropped."""
    try:
        data = file.read()
    except (OSError, DataError):  # DataError: the hash in a prepared set does not match
        return "file cannot be read"
    try:
        opened = open_image(data, config.size, config.background)
    except PixelLimitError:
        return "image over the pixel limit"
    except DataError:
        return "image does not decode"
    problem = size_problem(opened.width, opened.height, config.filters)
    if problem is not None:
        return problem
    image = resize_and_crop(opened.image, *stored_size(*opened.image.size, config))
    content = _encode(image, config)
    return StoredImage(
        data=content,
        width=image.width,
        height=image.height,
        source_width=opened.width,
        source_height=opened.height,
        hash=hashlib.sha256(content).hexdigest(),
        perceptual_hash=perceptual_hash(image),
        chroma=_mean_chroma(image),
    )


def stored_size(width: int, height: int, config: PrepareConfig) -> tuple[int, int]:
    """Width and height of the stored image: never larger than the source.

    If the aspect ratio is kept, the square and the nearest of `bucket_shapes` can both be cropped
    without enlarging the image, also at all smaller sizes.
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
    return _round_up(width * scale), _round_up(height * scale)


def _round_up(side: float) -> int:
    return ceil(side - 1e-6)  # 256.0000001 is a rounding error


def perceptual_hash(image: Image.Image) -> int:
    """64 signs of low frequencies of the grey image (ImageHash's phash)."""
    bits: np.ndarray = imagehash.phash(image).hash.flatten()
    return int(np.packbits(bits).view(">u8")[0])


def _mean_chroma(image: Image.Image) -> bytes:
    grid = image.convert("YCbCr").resize((4, 4), Image.Resampling.BOX)
    return np.asarray(grid)[:, :, 1:].tobytes()


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
