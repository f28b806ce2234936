"""Filter one item of a source by captions, scores and size; resize, encode and hash its image."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from wuerstchen.config import FilterConfig, PrepareConfig
from wuerstchen.data.images import nearest_bucket, open_image, resize_and_crop
from wuerstchen.data.items import ByteRange, Item
from wuerstchen.data.open import decoding_problem, item_problem
from wuerstchen.data.prepared import SCORES
from wuerstchen.data.report import Note
from wuerstchen.errors import DataError
from wuerstchen.geometry import Shape, bucket_shapes

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}

_SCORE_FIELDS = {"aesthetic": ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score")}
"""Metadata fields of a score, if not only its name; the first one with a number is used."""


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
    notes: tuple[Note, ...]
    """What is not used of the source."""


def process(item: Item, config: PrepareConfig) -> StoredImage | str:
    """The image as it will be stored, or why it is dropped; cheap checks come first."""
    problem = item_problem(item)
    if problem is not None:
        return problem
    assert item.image is not None and item.captions
    return (
        _captions_problem(item.captions, config.filters)
        or _scores_problem(scores_of(item.fields), config.filters)
        or _store_image(item, item.image, config)
    )


def scores_of(fields: Mapping[str, object]) -> dict[str, float | None]:
    """The scores among metadata fields; None for one without a finite number."""
    return {name: _number(fields, _SCORE_FIELDS.get(name, (name,))) for name in SCORES}


def _captions_problem(captions: Sequence[str], bounds: FilterConfig) -> str | None:
    """Why an image with these captions is dropped."""
    usable = usable_captions(captions, bounds)
    if not usable:
        return f"caption over {bounds.max_caption} characters"
    if bounds.min_caption is not None and max(map(len, usable)) < bounds.min_caption:
        return f"caption under {bounds.min_caption} characters"
    return None


def usable_captions(captions: Sequence[str], bounds: FilterConfig) -> list[str]:
    """Captions that are not too long."""
    limit = bounds.max_caption
    return [text for text in captions if limit is None or len(text) <= limit]


def _scores_problem(scores: Mapping[str, float | None], bounds: FilterConfig) -> str | None:
    """Why an image with these scores is dropped: the first score that is out of bounds."""
    for name, lowest, highest in (
        ("aesthetic", bounds.min_aesthetic, None),
        ("pwatermark", None, bounds.max_watermark),
        ("punsafe", None, bounds.max_unsafe),
        ("similarity", bounds.min_similarity, None),
    ):
        if lowest is None and highest is None:
            continue
        value = scores[name]
        if value is None:
            if bounds.missing_score == "drop":
                return f"without {name}"
        elif lowest is not None and value < lowest:
            return f"{name} under {lowest:g}"
        elif highest is not None and value > highest:
            return f"{name} over {highest:g}"
    return None


def _size_problem(width: int, height: int, bounds: FilterConfig) -> str | None:
    """Why an image of this size in pixels is dropped."""
    short, long = sorted((width, height))
    if bounds.min_side is not None and short < bounds.min_side:
        return f"shorter side under {bounds.min_side} pixels"
    if bounds.max_side is not None and long > bounds.max_side:
        return f"longer side over {bounds.max_side} pixels"
    if bounds.max_aspect is not None and long > bounds.max_aspect * short:
        return f"aspect ratio over {bounds.max_aspect:g}"
    return None


def _number(fields: Mapping[str, object], names: Sequence[str]) -> float | None:
    for name in names:
        try:
            value = float(str(fields[name]))
        except (KeyError, ValueError):
            continue
        if isfinite(value):
            return value
    return None


def _store_image(item: Item, file: ByteRange, config: PrepareConfig) -> StoredImage | str:
    try:
        opened = open_image(file.read(), config.size, config.background)
    except (OSError, DataError) as error:
        return decoding_problem(error, item)
    if problem := _size_problem(opened.width, opened.height, config.filters):
        return problem
    image = resize_and_crop(opened.image, *stored_size(*opened.image.size, config))
    content = _encode(image, config)
    sha256, bits = hashlib.sha256(content).hexdigest(), perceptual_hash(image)
    source = (opened.width, opened.height)
    chroma, notes = _mean_chroma(image), opened.notes
    return StoredImage(content, *image.size, *source, sha256, bits, chroma, notes)


def stored_size(width: int, height: int, config: PrepareConfig) -> tuple[int, int]:
    """Width and height of the stored image: never larger than the source.

    If the aspect ratio is kept, the square and the nearest of `bucket_shapes` can both be cropped
    without enlarging the image, also at all smaller sizes.
    """
    if config.shape == "square":
        side = min(width, height, config.size)
        return side, side
    shapes = bucket_shapes(config.size)
    nearest = shapes[int(nearest_bucket([width], [height], shapes)[0])]
    needed = (Shape(config.size, config.size), nearest)
    scale = max(max(shape.width / width, shape.height / height) for shape in needed)
    if scale >= 1:
        return width, height
    # 256.0000001 is a rounding error.
    return ceil(width * scale - 1e-6), ceil(height * scale - 1e-6)


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
