"""The twelve named backgrounds, and how well a sticker contrasts with each."""

import numpy as np
from PIL import Image

from wuerstchen.errors import DataError

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (16, 16, 16),
    "gray": (136, 136, 136),
    "red": (212, 36, 36),
    "orange": (245, 140, 30),
    "yellow": (250, 218, 60),
    "green": (48, 150, 66),
    "cyan": (90, 210, 220),
    "blue": (40, 84, 200),
    "purple": (122, 60, 168),
    "pink": (248, 160, 196),
    "brown": (116, 72, 40),
}
"""RGB levels from 0 to 255 by name."""

MIN_DISTANCE = 60.0
"""Colours at a smaller Euclidean distance (RGB levels from 0 to 255) are hard to tell apart."""

MAX_SIMILAR = 0.5
"""A sticker with a larger fraction of similar pixels is not placed on a background."""


def similar_fractions(sticker: Image.Image) -> dict[str, float]:
    """Fraction of an RGBA sticker's opaque pixels similar to each background, by its name.

    Raises DataError if no pixel is opaque.
    """
    pixels = np.asarray(sticker.convert("RGBA")).reshape(-1, 4)
    opaque = pixels[pixels[:, 3] >= 128, :3].astype(np.float64)  # (N, 3)
    if not len(opaque):
        raise DataError("Expected a sticker with opaque pixels, found a transparent image.")
    colours = np.array(list(BACKGROUNDS.values()), dtype=np.float64)  # (12, 3)
    # Squared distances by one product; exact, since all are integers.
    lengths = (opaque**2).sum(1)[:, None] + (colours**2).sum(1)
    similar = lengths - 2 * opaque @ colours.T < MIN_DISTANCE**2  # (N, 12)
    return dict(zip(BACKGROUNDS, similar.mean(0).tolist(), strict=True))


def background_of(image: Image.Image) -> str:
    """The named background nearest to the median colour of an RGB image's border pixels."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0)
    return min(BACKGROUNDS, key=lambda name: float(np.linalg.norm(colour - BACKGROUNDS[name])))
