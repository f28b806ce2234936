"""Bytes of an image file to RGB pixels, whatever colours the file is stored in."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageColor, ImageOps, features
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor

from wuerstchen.data.buckets import nearest_bucket
from wuerstchen.data.colours import to_srgb
from wuerstchen.data.png import check_rows
from wuerstchen.errors import ConfigError, DataError
from wuerstchen.geometry import Shape

MAX_PIXELS = 89_478_485
"""Larger images are refused unread (Pillow's own limit against decompression bombs)."""

_ALWAYS_READ = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

IMAGE_SUFFIXES = frozenset(_ALWAYS_READ | ({".avif"} if features.check("avif") else set()))
"""Files that are read as images; Pillow's wheels have AVIF, builds of one's own may not."""

_OTHER_FORMATS = {".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".svg", ".dng", ".cr2"}

UNREAD_SUFFIXES = frozenset(_OTHER_FORMATS - IMAGE_SUFFIXES)
"""Files that are images too, and are named in the report since they are not read."""

_REDUCING_GAP = 3.0
"""How much larger than asked a quick reduction stays before the exact filter (Pillow: 3 is
hardly told from the exact filter alone)."""


class PixelLimitError(DataError):
    """An image has more pixels than `MAX_PIXELS`."""


class Opened(NamedTuple):
    """An image as it is to be seen."""

    image: Image.Image
    """RGB; perhaps smaller than it was stored."""
    width: int
    """Pixels as stored, turned the right way."""
    height: int


def decode(data: bytes, shapes: Sequence[Shape], background: str) -> tuple[int, Tensor]:
    """Decode the whole file and make it (3, H, W) uint8 RGB, in the nearest of `shapes`.

    Returns the place of the shape too. Scaled with antialiasing to cover the shape, centre cropped;
    all else as `open_image`.
    """
    opened = open_image(data, max(map(max, shapes)), background)
    sizes = np.array([opened.width]), np.array([opened.height])
    bucket = int(nearest_bucket(*sizes, shapes)[0])
    height, width = shapes[bucket]
    pixels = np.array(cropped(opened.image, width, height))
    return bucket, torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)


def open_image(data: bytes, least: int, background: str) -> Opened:
    """Decode the whole file to RGB.

    Turned as its EXIF orientation says, its ICC profile brought to sRGB, laid on `background`
    where it is transparent. Animations give their first frame. Grey deeper than 8 bits is scaled
    as `_white` says.

    least  pixels of the shorter side that are needed: JPEGs with ample more are decoded smaller

    Raises PixelLimitError over `MAX_PIXELS`, DataError where the file does not decode, and
    ConfigError for an unknown background colour.
    """
    colour = parse_colour(background)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PixelLimitError(_over_limit(image.width * image.height))
            width, height = image.size
            _draft(image, least)
            _scale_clear_colour(image)
            white = _white(image)
            upright = ImageOps.exif_transpose(image)
            if isinstance(image, PngImageFile):
                check_rows(image, data)
            if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # lies on its side
                width, height = height, width
            return Opened(_to_rgb(to_srgb(upright), colour, white), width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PixelLimitError(_over_limit()) from None
    except (DataError, ConfigError):
        raise
    except Exception as error:  # decoders answer damaged bytes with every kind of exception
        raise DataError(
            f"Expected an image that decodes, found {type(error).__name__}: {error}"
        ) from None


def parse_colour(name: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour name or #rrggbb; ConfigError for anything else."""
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise ConfigError(
            f"data.background: expected a colour name such as white, or #rrggbb, found {name!r}."
        ) from None
    return red, green, blue


def _over_limit(pixels: int | None = None) -> str:
    found = f"{pixels:,}" if pixels else "more"
    return f"Expected an image of at most {MAX_PIXELS:,} pixels, found {found}; make it smaller."


def _draft(image: Image.Image, size: int) -> None:
    """Let JPEG decode at 1/2, 1/4 or 1/8 where that leaves ample pixels: several times faster."""
    scale = _REDUCING_GAP * size / min(image.size)
    if scale < 1:
        image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))


def _scale_clear_colour(image: Image.Image) -> None:
    """Bring a PNG's clear colour to 8 bits: Pillow scales the pixels, but not the colour.

    Of 16 bit colours Pillow keeps the upper 8, so that those are all that can be compared.
    """
    clear = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or clear is None:
        return
    match image.tile[0].args:
        case "L;2" | "L;4" as packed:
            image.info["transparency"] = clear * 255 // (2 ** int(packed[-1]) - 1)
        case "RGB;16B":
            image.info["transparency"] = tuple(level >> 8 for level in clear)


def _white(image: Image.Image) -> int | None:
    """The level of white in grey deeper than 8 bits; None where the format does not say.

    Pillow's modes I;16 have the bits of the file: 16, in a TIFF also 12. Its mode I is 32 bit
    integers, as whose white programs take any number; only PGM is known to be scaled to 16 bits.
    """
    if image.mode == "I":
        return 65_535 if image.format == "PPM" else None
    bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
    return int(2**bits - 1)


def _to_rgb(image: Image.Image, background: tuple[int, int, int], white: int | None) -> Image.Image:
    if image.mode.startswith("I"):
        image = _to_8_bits(image, white)
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
    if image.mode == "F":
        raise DataError("Expected whole-number pixels, found floating point without a range.")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image, white: int | None) -> Image.Image:
    """8 bit grey, with alpha where one level is clear; Pillow's own conversion clips at 255.

    Where `white` is not known, it is that of the 8 bits or else the 16 bits that hold all levels.
    """
    levels = np.asarray(image).astype(np.int64)  # (H, W)
    low, high = int(levels.min()), int(levels.max())
    if white is None:
        white = 255 if low >= 0 and high <= 255 else 65_535
    if low < 0 or high > white:
        raise DataError(f"Expected grey levels of 0 to {white:,}, found {low:,} to {high:,}.")
    grey = Image.fromarray((levels * (255 / white)).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return grey


def cropped(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale and centre crop in one step; on whole pixels, since half of one would blur."""
    scale = min(image.width / width, image.height / height)
    box_width, box_height = round(width * scale), round(height * scale)
    left, top = (image.width - box_width) // 2, (image.height - box_height) // 2
    return image.resize(
        (width, height),
        Image.Resampling.LANCZOS,
        box=(left, top, left + box_width, top + box_height),
        reducing_gap=_REDUCING_GAP,
    )
