"""Find the stickers of a scene on its flat background, and crop them to one size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wuerstchen.data.stickers.backgrounds import background_of
from wuerstchen.data.stickers.scenes import Box

DIFFERENT = 40.0
"""Pixels at a larger distance from the background (RGB levels from 0 to 255) belong to stickers."""

REACH = 1 / 256
"""Fraction of the image's side up to which parts count as connected: a pixel of 256, none of 128,
where stickers of a scene are two pixels apart."""

SIMILAR = 24.0
"""Pixels at a smaller distance get the background's exact colour in a crop, which has no frame."""

SPECK = 1 / 2000
"""Components of a smaller fraction of the image are noise."""

FRAGMENT = 0.45
"""A component whose longer side is a smaller fraction of the largest's belongs to its neighbour."""

OVERLAP = 0.3
"""Components whose boxes share a larger fraction of the smaller box are one sticker."""

FILL = 0.86
"""Longer side of a sticker, as a fraction of its crop's side."""


@dataclass(frozen=True, slots=True)
class Segments:
    """What stands out from the background."""

    background: str
    """Name of its colour."""
    boxes: tuple[Box, ...]
    """One for each sticker, the largest first; empty for a blank image."""

    @property
    def whole(self) -> Box | None:
        """The box of all stickers; None for a blank image."""
        return _union(self.boxes) if self.boxes else None


def segment(image: Image.Image) -> Segments:
    """Background and stickers of an RGB scene."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    mask = np.linalg.norm(pixels - _border_colour(pixels), axis=2) > DIFFERENT
    boxes = sorted(_components(mask), key=_longer_side, reverse=True)
    return Segments(background_of(image), tuple(_merge(boxes)))


def crop(image: Image.Image, box: Box, side: int) -> Image.Image:
    """The box scaled to `FILL` of a square of side x side pixels, on the scene's background."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    background = np.rint(_border_colour(pixels))
    similar = np.linalg.norm(pixels - background, axis=2) < SIMILAR
    clean = np.where(similar[..., None], background, pixels).astype(np.uint8)
    part = Image.fromarray(clean).crop(box)
    scale = FILL * side / max(part.size)
    width, height = (max(1, round(length * scale)) for length in part.size)
    red, green, blue = (int(level) for level in background)
    square = Image.new("RGB", (side, side), (red, green, blue))
    resized = part.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(resized, ((side - width) // 2, (side - height) // 2))
    return square


def centre(box: Box) -> tuple[float, float]:
    """Of a box, in pixels from the left and from the top."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _border_colour(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour: NDArray[np.float32] = np.median(border, axis=0).astype(np.float32)
    return colour


def _components(mask: NDArray[np.bool_]) -> list[Box]:
    """Boxes of the connected parts of the mask, without specks."""
    from scipy import ndimage

    reach = round(REACH * mask.shape[0])
    square = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    joined = ndimage.binary_dilation(mask, square) if reach else mask
    labels, count = ndimage.label(joined, np.ones((3, 3), bool))
    labels = labels * mask  # boxes without the dilation
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    return [
        (columns.start, rows.start, columns.stop, rows.stop)
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
        if areas[label] >= SPECK * mask.size
    ]


def _merge(boxes: list[Box]) -> list[Box]:
    """Stickers from components, largest first: fragments join the sticker nearest to them."""
    stickers: list[Box] = []
    for box in boxes:
        near = min(stickers, key=lambda other: _gap(box, other), default=None)
        fragment = bool(stickers) and _longer_side(box) < FRAGMENT * _longer_side(stickers[0])
        if near is not None and (fragment or _shared(box, near) > OVERLAP):
            stickers[stickers.index(near)] = _union((near, box))
        else:
            stickers.append(box)
    return stickers


def _longer_side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _shared(one: Box, other: Box) -> float:
    """Fraction of the smaller box that is within the other."""
    both = (*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:]))
    return _area((both[0], both[1], both[2], both[3])) / min(_area(one), _area(other))


def _gap(one: Box, other: Box) -> float:
    """Distance between two boxes in pixels; negative if they overlap."""
    horizontal = max(one[0], other[0]) - min(one[2], other[2])
    vertical = max(one[1], other[1]) - min(one[3], other[3])
    if max(horizontal, vertical) < 0:
        return float(max(horizontal, vertical))
    return float(np.hypot(max(0, horizontal), max(0, vertical)))


def _union(boxes: tuple[Box, ...]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
