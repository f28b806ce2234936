"""Convert images of any colour mode to 8-bit sRGB on an opaque background."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageColor
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from wuerstchen.errors import ConfigError, DataError

_SRGB = ImageCms.createProfile("sRGB")
_MODES = {"RGB": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L",)}
"""Pillow modes that fit each colour space of a profile."""


def parse_colour(name: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour name or #rrggbb; ConfigError for anything else."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        expected = "a colour name such as white, or #rrggbb"
        raise ConfigError(f"data.background: expected {expected}, found {name!r}.") from None


def to_srgb(image: Image.Image) -> Image.Image:
    """Apply the ICC profile (ICC.1:2022); without one that fits the mode, return `image`."""
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        is_srgb = "srgb" in (profile.profile.profile_description or "").lower()
        if is_srgb or image.mode not in _MODES.get(profile.profile.xcolor_space.strip(), ()):
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        found = ImageCms.profileToProfile(image, profile, _SRGB, outputMode=mode)
    except (OSError, ImageCms.PyCMSError):  # damaged profiles are common; viewers ignore them too
        return image
    return image if found is None else found


def scale_transparent_colour(image: Image.Image) -> None:
    """Scale a PNG's transparent colour to 8 bits: Pillow scales the pixels, but not the colour.

    Of 16-bit colours Pillow keeps the upper 8 bits, so only those can be compared.
    """
    transparent = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or transparent is None:
        return
    match image.tile[0].args:
        case "L;2" | "L;4" as packed:
            image.info["transparency"] = transparent * 255 // (2 ** int(packed[-1]) - 1)
        case "RGB;16B":
            image.info["transparency"] = tuple(level >> 8 for level in transparent)


def white_level(image: Image.Image) -> int | None:
    """White in grey deeper than 8 bits; None if the format does not define it.

    Pillow's modes I;16 keep the bits of the file: 16, in a TIFF also 12. Its mode I is 32-bit
    integers, for which programs choose any white; only PGM is known to be scaled to 16 bits.
    """
    if image.mode == "I":
        return 65_535 if image.format == "PPM" else None
    bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
    return int(2**bits - 1)


def to_rgb(image: Image.Image, background: tuple[int, int, int], white: int | None) -> Image.Image:
    """8-bit RGB; transparent pixels show `background`, and `white` is the level of deep grey."""
    if image.mode.startswith("I"):
        image = _to_8_bits(image, white)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    if image.mode == "F":
        raise DataError("Expected integer pixels, found floating point without a known range.")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image, white: int | None) -> Image.Image:
    """8-bit grey, with alpha if one level is transparent; Pillow's own conversion clips at 255.

    If `white` is None, it is 255 if that holds all levels, else 65,535.
    """
    levels = np.asarray(image).astype(np.int64)  # (H, W)
    low, high = int(levels.min()), int(levels.max())
    if white is None:
        white = 255 if low >= 0 and high <= 255 else 65_535
    if low < 0 or high > white:
        raise DataError(f"Expected grey levels of 0 to {white:,}, found {low:,} to {high:,}.")
    grey = Image.fromarray((levels * (255 / white)).round().astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey
