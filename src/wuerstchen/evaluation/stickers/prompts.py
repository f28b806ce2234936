"""The prompts of each kind of score, with real images of the same scenes."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from wuerstchen.data.stickers import Composed, Composer, Mix, Part, Sprites, open_sprites
from wuerstchen.errors import DataError
from wuerstchen.evaluation.stickers.judge import Cell

Set = Literal["training", "held-out", "several", "pair"]

SETS: dict[Set, tuple[Part, Mix]] = {
    "training": ("train", Mix(0, 0)),
    "held-out": ("test-cells", Mix(0, 0)),
    "several": ("train", Mix(0, 1)),
    "pair": ("train", Mix(1, 0)),
}
"""Stickers and kind of scenes: one sticker, two to four of a kind, two with a relation."""

STREAM = 7919
"""Added to the seed, so that these are not the scenes that models are trained on with it."""


def scenes(
    folder: Path, name: Set, count: int, size: int, seed: int, knows: Callable[[Cell], bool]
) -> list[Composed]:
    """`count` scenes whose first caption names everything.

    knows  whether the judge can name the object of a pair; the others are left out

    Raises DataError if the set has no pair that the judge knows.
    """
    part, mix = SETS[name]
    sprites = open_sprites(folder, part)
    known = Sprites(part, [s for s in sprites.all if knows((s.name, s.style))])
    if len(known.objects) < 2:
        raise DataError(
            f"{folder}: expected {part} stickers of at least two objects that occur in several "
            f"styles, found {len(known.objects)}; name a larger set."
        )
    composer = Composer(known, size, seed + STREAM, mix, captions=1)
    return [composer[index] for index in range(count)]
