"""Several captions for one scene, so that a model learns words and not one template.

They vary in order and content: style before or after the object, its name or keywords, the relation
from either side, with and without background or style.
"""

from dataclasses import dataclass

from wuerstchen.data.stickers.grammar import NUMERALS, plural, random_case, with_article
from wuerstchen.data.stickers.random_choices import RandomChoices
from wuerstchen.data.stickers.scenes import OPPOSITE, Relation, Scene
from wuerstchen.data.stickers.sprites import Sprite

NO_BACKGROUND = 0.15
"""Fraction of captions without the background."""

NO_STYLE = 0.08
"""Fraction of captions of single stickers without the style."""

WITH_KEYWORDS = 0.2
"""Fraction of captions of single stickers that add keywords to the object's name."""

ONLY_KEYWORDS = 0.1
"""Fraction of captions of single stickers that have keywords in place of the object's name."""

PHRASES: dict[Relation, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True)
class Caption:
    """A caption, and what it mentions."""

    text: str
    name: bool
    """Whether it has the names of the objects."""
    style: bool
    background: bool


def captions_of(scene: Scene, count: int, rng: RandomChoices) -> list[Caption]:
    """`count` different captions, or fewer if the scene has fewer wordings.

    The first one names objects, styles and background, and its case is unchanged.
    """
    captions = {}
    first = _caption(scene, rng, complete=True)
    captions[first.text] = first
    for _ in range(20 * count):
        if len(captions) >= count:
            break
        caption = _caption(scene, rng, complete=False)
        captions.setdefault(caption.text, caption)
    return list(captions.values())


def _caption(scene: Scene, rng: RandomChoices, *, complete: bool) -> Caption:
    """complete  name everything, and leave the case unchanged"""
    background = complete or not rng.chance(NO_BACKGROUND)
    style, name = True, True
    match scene.kind:
        case "one":
            style = complete or not rng.chance(NO_STYLE)
            sprite = scene.sprites[0]
            noun, name = (sprite.name, True) if complete else _noun(sprite, rng)
            text = _one(noun, sprite.style if style else None, rng)
        case "several":
            text = _several(scene.sprites[0], scene.count, rng)
        case "pair":
            assert scene.relation is not None
            text = _pair(scene.sprites[0], scene.sprites[1], scene.relation, rng)
    if background:
        text = _with_background(text, scene.background, rng)
    return Caption(text if complete else random_case(text, rng), name, style, background)


def _noun(sprite: Sprite, rng: RandomChoices) -> tuple[str, bool]:
    """Words for an object, and whether its name is among them."""
    words = rng.shuffled(sprite.keywords)
    if len(words) >= 2 and rng.chance(ONLY_KEYWORDS):
        return " ".join(words[: 2 + rng.below(2)]), False
    if words and rng.chance(WITH_KEYWORDS):
        extra = ", ".join(words[: 1 + rng.below(2)])
        return rng.pick([f"{sprite.name}, {extra}", f"{sprite.name} ({extra})"]), True
    return sprite.name, True


def _one(noun: str, style: str | None, rng: RandomChoices) -> str:
    if style is None:
        return rng.pick([with_article(noun), noun, f"an emoji of {with_article(noun)}"])
    return rng.pick(
        [
            f"{with_article(style)} emoji of {with_article(noun)}",
            f"{with_article(style)} sticker of {with_article(noun)}",
            f"{with_article(noun)} in {style} style",
            f"{noun}, {style} style",
            f"{noun}, {style}",
            f"{style} {noun}",
            f"{style} style: {noun}",
            f"{with_article(f'{style} {noun}')}",
        ]
    )


def _several(sprite: Sprite, count: int, rng: RandomChoices) -> str:
    number = rng.pick([NUMERALS[count], str(count)])
    noun, style = sprite.name, sprite.style
    many = plural(noun)
    wordings = [
        f"{number} {style} stickers of {with_article(noun)}",
        f"{number} times {with_article(noun)} in {style} style",
        f"{with_article(noun)}, {number} times, {style} style",
    ]
    if many is not None:
        wordings += [
            f"{number} {many} in {style} style",
            f"{number} {style} {many}",
            f"{number} {many}, {style}",
            f"{style} emoji of {number} {many}",
        ]
    return rng.pick(wordings)


def _pair(first: Sprite, second: Sprite, relation: Relation, rng: RandomChoices) -> str:
    if rng.chance(0.5):
        first, second, relation = second, first, OPPOSITE[relation]
    phrase = rng.pick(PHRASES[relation])
    one, other = with_article(first.name), with_article(second.name)
    if first.style != second.style:
        return rng.pick(
            [
                f"{with_article(f'{first.style} {first.name}')} {phrase} "
                f"{with_article(f'{second.style} {second.name}')}",
                f"{one} in {first.style} style {phrase} {other} in {second.style} style",
            ]
        )
    style = first.style
    return rng.pick(
        [
            f"{one} {phrase} {other}, {style} style",
            f"{one} {phrase} {other} in {style} style",
            f"{style} emoji of {one} {phrase} {other}",
            f"{style} style: {one} {phrase} {other}",
        ]
    )


def _with_background(text: str, background: str, rng: RandomChoices) -> str:
    noun = f"{with_article(background)} background"
    wordings = [f"{text} on {noun}", f"{text} on {background}", f"{text}, {background} background"]
    if ":" not in text:
        wordings.append(f"{noun} with {text}")
    return rng.pick(wordings)
