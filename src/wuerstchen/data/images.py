"""Decode image files to RGB, and resize and crop them to the nearest training shape."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from wuerstchen.data import colours, jpeg_metadata, png_metadata
from wuerstchen.data.png import check_rows
from wuerstchen.data.report import Note
from wuerstchen.errors import DataError
from wuerstchen.geometry import Shape

MAX_PIXELS = 89_478_485
"""Larger images are refused unread (Pillow's own limit against decompression bombs)."""

_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
"""Pillow would start another program, Ghostscript, on these."""

_UNREAD_FORMATS = {
    "PDF": (b"%PDF",),
    "SVG": (b"<svg", b"<?xml"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "HEIC": tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    "a raw camera file": (b"FUJIFILM", b"FOVb", b"ftypcrx "),
}
"""Starts of formats that are not read, also under another suffix: phones write HEIC as .jpg."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image that is stored under each EXIF orientation (EXIF 2.32, tag 0x0112)."""

_REDUCING_GAP = 3.0
"""Least factor between a fast reduction and the final size, which an exact filter brings it to
(Pillow: from 3 on the result is nearly the same as with the exact filter alone)."""


class PixelLimitError(DataError):
    """An image has more pixels than `MAX_PIXELS`."""


class FormatError(DataError):
    """An image is in a format that is not read."""


class DecodedImage(NamedTuple):
    """An upright RGB image and the size of its original."""

    image: Image.Image
    """Maybe smaller than the original."""
    width: int
    """Upright width of the original in pixels."""
    height: int
    notes: tuple[Note, ...]
    """What is not used of the file."""


def decode(data: bytes, shapes: Sequence[Shape], background: str) -> tuple[int, Tensor]:
    """The index of the nearest of `shapes`, and the image in it: (3, H, W) uint8 RGB.

    The image is resized with antialiasing to cover the shape, then centre cropped; see
    `open_image` for colours, orientation and errors.
    """
    return fit(open_image(data, max(map(max, shapes)), background), shapes)


def fit(opened: DecodedImage, shapes: Sequence[Shape]) -> tuple[int, Tensor]:
    """As `decode`, of an image that is open."""
    bucket = int(nearest_bucket([opened.width], [opened.height], shapes)[0])
    height, width = shapes[bucket]
    pixels = np.array(resize_and_crop(opened.image, width, height))
    return bucket, torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Images over the limit are errors, while damaged metadata, which is common, is no news.

    Pillow only warns between its limit and twice its limit; both are over our limit.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_image(data: bytes, min_side: int, background: str) -> DecodedImage:
    """Decode the whole file to upright RGB.

    Applies the EXIF orientation and the ICC profile, and shows `background` where the image is
    transparent. Of an animation only the first frame is read.

    min_side  pixels that the shorter side needs: much larger JPEGs are decoded at a reduced size

    Raises PixelLimitError above `MAX_PIXELS`, MetadataLimitError for a PNG whose text unpacks to
    far more than any program writes, FormatError for formats that are not read, DataError if the
    file does not decode, and ConfigError for an unknown background colour.
    """
    colour = colours.parse_colour(background)
    notes: list[Note] = []
    profile = None
    try:
        if data.startswith(_POSTSCRIPT):
            raise FormatError("Expected an image of pixels, found PostScript.")
        data, profile, lost = _without_large_metadata(data)
        notes += ["text or profile over the size limit"] if lost else []
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PixelLimitError(_over_limit(image.width * image.height))
            width, height = image.size
            if profile:
                image.info["icc_profile"] = profile
            _reduce_jpeg(image, min_side)
            colours.scale_transparent_colour(image)
            white = colours.white_level(image)
            image.load()
            orientation, note = _orientation(image)
            notes += [note] if note else []
            upright = image.transpose(_UPRIGHT[orientation]) if orientation > 1 else image
            if isinstance(image, PngImageFile):
                check_rows(image, data)
            if orientation >= 5:  # rotated by 90 degrees
                width, height = height, width
            rgb = colours.to_rgb(colours.to_srgb(upright), colour, white)
            return DecodedImage(rgb, width, height, tuple(notes))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PixelLimitError(_over_limit()) from None
    except DataError:
        raise
    except UnidentifiedImageError:
        raise _explain_format(data) from None
    except Exception as error:  # decoders raise any kind of exception on damaged files
        found = f"{type(error).__name__}: {error}"
        raise DataError(f"Expected an image that decodes, found {found}") from None


def _explain_format(data: bytes) -> DataError:
    for name, starts in _UNREAD_FORMATS.items():
        if data.startswith(starts) or data[4:12] in starts:
            return FormatError(f"Expected an image in a format that is read, found {name}.")
    return DataError("Expected an image that decodes, found bytes of no known format.")


def _without_large_metadata(data: bytes) -> tuple[bytes, bytes | None, bool]:
    """The file, a profile that was taken out of it, and whether other metadata was."""
    if data.startswith(png_metadata.SIGNATURE):
        return png_metadata.without_large_metadata(data)
    if data.startswith(jpeg_metadata.START):
        data, lost = jpeg_metadata.without_large_metadata(data)
        return data, None, lost
    return data, None, False


def _orientation(image: Image.Image) -> tuple[int, Note | None]:
    """The EXIF orientation of a loaded image, 1 to 8; 1 with a note if there is no such number.

    Pillow turns TIFFs while it loads them, and removes their orientation.
    """
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # like its decoders, Pillow's reader raises any kind of exception
        return 1, "EXIF that cannot be read"
    if type(found) is int and 1 <= found <= 8:
        return found, None
    return 1, "EXIF orientation other than 1 to 8"


def _over_limit(pixels: int | None = None) -> str:
    found = f"{pixels:,}" if pixels else "more"
    return f"Expected an image of at most {MAX_PIXELS:,} pixels, found {found}; make it smaller."


def _reduce_jpeg(image: Image.Image, size: int) -> None:
    """Decode a JPEG at 1/2, 1/4 or 1/8 if that leaves ample pixels: several times faster."""
    scale = _REDUCING_GAP * size / min(image.size)
    if scale < 1:
        image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))


def nearest_bucket(widths: ArrayLike, heights: ArrayLike, shapes: Sequence[Shape]) -> np.ndarray:
    """(N,) indices into the K `shapes` with the nearest aspect ratio, by its logarithm."""
    ratios = np.log(np.asarray(widths) / np.asarray(heights))  # (N,)
    bucket_ratios = np.log([shape.width / shape.height for shape in shapes])  # (K,)
    return np.asarray(np.abs(ratios[:, None] - bucket_ratios[None]).argmin(axis=1))


def resize_and_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize and centre crop in one step; from whole pixels, since half a pixel would blur."""
    scale = min(image.width / width, image.height / height)
    box_width, box_height = round(width * scale), round(height * scale)
    left, top = (image.width - box_width) // 2, (image.height - box_height) // 2
    box = (left, top, left + box_width, top + box_height)
    return image.resize((width, height), Image.Resampling.LANCZOS, box, _REDUCING_GAP)
