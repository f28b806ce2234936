"""Sizes of images, latents and semantics, and the constants that connect the three stages.

At 1024 pixels a latent has 256 and the semantics have 24 cells per side: 42.67 pixels per cell.
"""

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from wuerstchen.errors import SizeError

if TYPE_CHECKING:  # configs are read without importing torch
    from torch import Tensor

LATENT_STRIDE = 4
"""Pixels per latent cell (Stage A is f4)."""

COMPRESSOR_STRIDE = 32
"""Pixels of the compressor's own input per cell of semantics."""

SEMANTICS_STRIDE = 128 / 3
"""Pixels of the image per cell of semantics: the 42:1 of the title (1024 / 24 = 42.67)."""

COMPRESSOR_SHRINK = COMPRESSOR_STRIDE / SEMANTICS_STRIDE
"""The compressor reads the image at 0.75 of its size (1024 becomes 768)."""

SIZE_STEP = 128
"""Sides are multiples of 128 pixels: only then all three grids fit without rounding."""

MOST_SIDE = 10**9
"""Pixels; longer sides are typing errors."""

SEMANTICS_SCALE = 42.0
SEMANTICS_SHIFT = 1.0
"""Stage C diffuses (semantics + 1) / 42. diffusers calls the two `latent_mean` and `latent_std`."""

BUCKET_AREA = 0.125
"""Largest relative difference between the area of a bucket and that of the square."""

BUCKET_ASPECT = 3.0
"""Largest ratio of the long side to the short one."""


class Shape(NamedTuple):
    """Pixels; multiples of 128."""

    height: int
    width: int


def scale_semantics(semantics: "Tensor") -> "Tensor":
    """Output of the compressor (and input of Stage B) to the space that Stage C diffuses."""
    return (semantics + SEMANTICS_SHIFT) / SEMANTICS_SCALE


def unscale_semantics(scaled: "Tensor") -> "Tensor":
    """Samples of Stage C to the input of Stage B."""
    return scaled * SEMANTICS_SCALE - SEMANTICS_SHIFT


def check_size(height: int, width: int) -> None:
    """Raise `SizeError` unless both sides are positive multiples of 128 pixels, not absurd ones."""
    for name, side in (("height", height), ("width", width)):
        if side > MOST_SIDE:
            raise SizeError(f"{name} must be at most {MOST_SIDE} pixels, found {side}.")
        if side <= 0 or side % SIZE_STEP:
            near = max(SIZE_STEP, round(side / SIZE_STEP) * SIZE_STEP)
            raise SizeError(
                f"{name} must be a positive multiple of {SIZE_STEP} pixels, found {side}; "
                f"the nearest that fits is {near}."
            )


def latent_size(height: int, width: int) -> tuple[int, int]:
    """Cells of the latent for an image of `height` x `width` pixels."""
    return height // LATENT_STRIDE, width // LATENT_STRIDE


def semantics_size(height: int, width: int) -> tuple[int, int]:
    """Cells of the semantics for an image of `height` x `width` pixels."""
    return ceil(height / SEMANTICS_STRIDE), ceil(width / SEMANTICS_STRIDE)


def compressor_size(height: int, width: int) -> tuple[int, int]:
    """Pixels of the compressor's input for an image of `height` x `width` pixels."""
    rows, columns = semantics_size(height, width)
    return rows * COMPRESSOR_STRIDE, columns * COMPRESSOR_STRIDE


def latent_size_of_semantics(rows: int, columns: int) -> tuple[int, int]:
    """Cells of the latent for `rows` x `columns` cells of semantics (10.67 per side each)."""
    cells = SEMANTICS_STRIDE / LATENT_STRIDE
    return round(rows * cells), round(columns * cells)


def bucket_shapes(size: int) -> list[Shape]:
    """Shapes of about size x size pixels: the square, then longer ones (none up to 256 pixels)."""
    found = [Shape(size, size)]
    for short in range(size - SIZE_STEP, 0, -SIZE_STEP):
        long = round(size * size / short / SIZE_STEP) * SIZE_STEP
        if abs(short * long / size**2 - 1) <= BUCKET_AREA and long <= BUCKET_ASPECT * short:
            found += [Shape(long, short), Shape(short, long)]
    return found
