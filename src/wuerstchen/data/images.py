"""Bytes of a picture file to a square RGB tensor, whatever colours the file is stored in."""

import io

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps
from torch import Tensor

from wuerstchen.errors import ConfigError, DataError

MAX_PIXELS = 89_478_485
"""Larger pictures are refused unread (Pillow's own limit against decompression bombs)."""

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"},
)

_REDUCING_GAP = 3.0
"""How much larger than asked a quick reduction stays before the exact filter (Pillow: 3 is
hardly told from the exact filter alone)."""


class PixelLimitError(DataError):
    """A picture has more pixels than `MAX_PIXELS`."""


def decode(data: bytes, size: int, background: str) -> Tensor:
    """Decode the whole file and make it (3, size, size) uint8 RGB.

    Turned as its EXIF orientation says, laid on `background` where it is transparent, shorter
    side scaled to `size` with antialiasing, centre cropped. Animations give their first frame.
    ICC profiles are not applied.

    Raises PixelLimitError over `MAX_PIXELS`, DataError where the file does not decode, and
    ConfigError for an unknown background colour.
    """
    colour = parse_colour(background)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PixelLimitError(_over_limit(image.width * image.height))
            _draft(image, size)
            square = _square(_to_rgb(ImageOps.exif_transpose(image), colour), size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PixelLimitError(_over_limit()) from None
    except (DataError, ConfigError):
        raise
    except Exception as error:  # decoders answer damaged bytes with every kind of exception
        raise DataError(
            f"Expected a picture that decodes, found {type(error).__name__}: {error}"
        ) from None
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # (3, S, S)


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
    return f"Expected a picture of at most {MAX_PIXELS:,} pixels, found {found}; make it smaller."


def _draft(image: Image.Image, size: int) -> None:
    """Let JPEG decode at 1/2, 1/4 or 1/8 where that leaves ample pixels: several times faster."""
    scale = _REDUCING_GAP * size / min(image.size)
    if scale < 1:
        image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
    if image.mode == "F":
        raise DataError("Expected whole-number pixels, found floating point without a range.")
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65_535)
        return Image.fromarray((grey / 257).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image, size: int) -> Image.Image:
    """Centre crop and scale in one step; on whole pixels, since half of one would blur."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize(
        (size, size),
        Image.Resampling.LANCZOS,
        box=(left, top, left + side, top + side),
        reducing_gap=_REDUCING_GAP,
    )
