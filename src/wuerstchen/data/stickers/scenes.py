"""Random layouts of scenes: stickers, background, count and relation.

Boxes are (left, top, right, bottom) in pixels; right and bottom are exclusive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wuerstchen.data.stickers.backgrounds import BACKGROUNDS, MAX_SIMILAR
from wuerstchen.data.stickers.random_choices import RandomChoices
from wuerstchen.data.stickers.sprites import Sprite, Sprites, background_similarity, image_of

Kind = Literal["one", "pair", "several"]
Relation = Literal["left of", "right of", "above", "below"]
Box = tuple[int, int, int, int]

RELATIONS: tuple[Relation, ...] = ("left of", "right of", "above", "below")

OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

COUNTS = (2, 3, 4)

SINGLE_SIZE = (0.45, 0.92)
"""Range of a single sticker's longer side, as a fraction of the image's side."""

CELL_SIZE = (0.72, 0.96)
"""Range of the longer side of one of several stickers, as a fraction of its cell's shorter side."""

SAME_STYLE = 0.7
"""Fraction of pairs whose two stickers have the same style."""


@dataclass(frozen=True)
class Mix:
    """Fractions of the kinds of scenes; all others are single stickers."""

    pair: float = 0.25
    several: float = 0.15


@dataclass(frozen=True)
class Scene:
    """The layout of an image."""

    kind: Kind
    sprites: tuple[Sprite, ...]
    """The single one, the first and second of a relation, or the repeated one."""
    background: str
    """A key of `BACKGROUNDS`."""
    boxes: tuple[Box, ...]
    """One for each sticker in the image; of a pair, that of the first sticker first."""
    relation: Relation | None = None
    """Of the first to the second sticker."""

    @property
    def count(self) -> int:
        """Number of stickers in the image."""
        return len(self.boxes)

    def placements(self) -> list[tuple[Sprite, Box]]:
        """Every sticker in the image with its box."""
        sprites = self.sprites * self.count if self.kind == "several" else self.sprites
        return list(zip(sprites, self.boxes, strict=True))


def random_scene(sprites: Sprites, size: int, mix: Mix, rng: RandomChoices) -> Scene:
    """A scene of `size` x `size` pixels: an object, all equally likely, then one of its styles."""
    kind = rng.uniform()
    sprite = rng.pick(rng.pick(sprites.objects))
    if kind < mix.pair:
        return _pair(sprite, sprites, size, rng)
    if kind < mix.pair + mix.several:
        return _several(sprite, size, rng)
    box = _place(sprite, (0, 0, size, size), size * rng.uniform(*SINGLE_SIZE), rng)
    return Scene("one", (sprite,), _background((sprite,), rng), (box,))


def _pair(first: Sprite, sprites: Sprites, size: int, rng: RandomChoices) -> Scene:
    second = _second_sprite(first, sprites, rng)
    relation = rng.pick(RELATIONS)
    middle = round(size * rng.uniform(0.44, 0.56))
    halves: list[Box]
    if relation in ("left of", "right of"):
        halves = [(0, 0, middle, size), (middle, 0, size, size)]
    else:
        halves = [(0, 0, size, middle), (0, middle, size, size)]
    if relation in ("right of", "below"):
        halves.reverse()
    boxes = tuple(
        _place(sprite, half, _shorter_side(half) * rng.uniform(*CELL_SIZE), rng)
        for sprite, half in zip((first, second), halves, strict=True)
    )
    return Scene("pair", (first, second), _background((first, second), rng), boxes, relation)


def _several(sprite: Sprite, size: int, rng: RandomChoices) -> Scene:
    count = rng.pick(COUNTS)
    columns, rows = rng.pick([(2, 2), (2, 2), (count, 1), (1, count)])
    cells: list[Box] = [
        (
            column * size // columns,
            row * size // rows,
            (column + 1) * size // columns,
            (row + 1) * size // rows,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    chosen = rng.shuffled(cells)[:count]
    longer_side = min(map(_shorter_side, chosen)) * rng.uniform(*CELL_SIZE)
    boxes = tuple(_place(sprite, cell, longer_side, rng) for cell in chosen)
    return Scene("several", (sprite,), _background((sprite,), rng), boxes)


def _second_sprite(first: Sprite, sprites: Sprites, rng: RandomChoices) -> Sprite:
    """A sticker of another object, mostly in the same style."""
    same = rng.chance(SAME_STYLE)
    for _ in range(100):
        sprite = rng.pick(rng.pick(sprites.objects))
        if sprite.name != first.name and (sprite.style == first.style) == same:
            return sprite
    others = [sprite for sprite in sprites.all if sprite.name != first.name]
    return rng.pick(others or [first])


def _background(sprites: Sequence[Sprite], rng: RandomChoices) -> str:
    """A random background that contrasts with all stickers; if there is none, the best one."""
    order = rng.shuffled(list(BACKGROUNDS))
    similarities = [background_similarity(sprite) for sprite in sprites]
    worst = {name: max(each[name] for each in similarities) for name in order}
    best = min(order, key=lambda name: worst[name])
    return next((name for name in order if worst[name] <= MAX_SIMILAR), best)


def _place(sprite: Sprite, cell: Box, longer_side: float, rng: RandomChoices) -> Box:
    """A random box within a cell, with the sticker's aspect ratio.

    longer_side  of the box in pixels, at most the cell's shorter side
    """
    image = image_of(sprite)
    scale = longer_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    left = cell[0] + rng.below(cell[2] - cell[0] - width + 1)
    top = cell[1] + rng.below(cell[3] - cell[1] - height + 1)
    return left, top, left + width, top + height


def _shorter_side(box: Box) -> int:
    return min(box[2] - box[0], box[3] - box[1])
