"""Stickers, each one object in one drawing style, from webdataset tars."""

import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal, final

from PIL import Image, UnidentifiedImageError

from wuerstchen.data.items import ByteRange, Item
from wuerstchen.data.report import Report
from wuerstchen.data.stickers.backgrounds import similar_fractions
from wuerstchen.data.tars import read_tar
from wuerstchen.errors import DataError

Part = Literal["train", "test-cells", "test-objects"]
"""Training; pairs of object and style not in training; objects not in training in any style."""

STYLES = ("3D", "flat", "noto", "blob", "twemoji", "emojione")

CACHED = 10_000
"""Decoded stickers kept in memory, at most 256 KiB each: 2 GiB for the whole set."""

WORDS = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")
"""Keywords that captions can use: no symbols such as a check mark."""

THUMBNAIL = 48
"""Side in pixels of the copy that is compared with the backgrounds."""


@dataclass(frozen=True, slots=True)
class Sprite:
    """A sticker on disk."""

    key: str
    name: str
    """The object."""
    style: str
    """One of `STYLES`."""
    keywords: tuple[str, ...]
    """Other words for the object, none of them in its name; may be empty."""
    licence: str
    source: str
    data: ByteRange


@final
class Sprites:
    """All stickers of one part, grouped by object."""

    def __init__(self, part: Part, sprites: Sequence[Sprite]) -> None:
        self.part: Part = part
        self.all = tuple(sprites)
        by_name: dict[str, list[Sprite]] = {}
        for sprite in sprites:
            by_name.setdefault(sprite.name, []).append(sprite)
        self.objects = tuple(tuple(by_name[name]) for name in sorted(by_name))
        """The stickers of each object; objects in alphabetical order."""

    def __len__(self) -> int:
        return len(self.all)

    @property
    def cells(self) -> frozenset[tuple[str, str]]:
        """All pairs of object and style."""
        return frozenset((sprite.name, sprite.style) for sprite in self.all)


def open_sprites(folder: Path, part: Part = "train") -> Sprites:
    """The stickers of one part.

    Raises DataError if a tar or a field is missing, or if train and test share a cell.
    """
    sprites = Sprites(part, _read(folder, part))
    if part == "train":
        held_out = {
            (sprite.name, sprite.style)
            for other in ("test-cells", "test-objects")
            for sprite in _read(folder, other, required=False)
        }
        shared = sorted(sprites.cells & held_out)
        if shared:
            name, style = shared[0]
            raise DataError(
                f"{folder}: expected train and test to share no pair of object and style, found "
                f"{len(shared)} such as {name!r} in {style!r}; split the set again."
            )
    return sprites


@lru_cache(maxsize=CACHED)
def image_of(sprite: Sprite) -> Image.Image:
    """The sticker in RGBA, cropped to its visible pixels; do not modify it.

    Raises DataError if it does not decode or is fully transparent.
    """
    try:
        with Image.open(io.BytesIO(sprite.data.read())) as image:
            decoded = image.convert("RGBA")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f"{sprite.data.path}: expected the sticker {sprite.key} to decode, found: {error}; "
            "copy the set again."
        ) from None
    box = decoded.getchannel("A").point(lambda level: 255 * (level >= 8)).getbbox()
    if box is None:
        raise DataError(
            f"{sprite.data.path}: expected visible pixels in the sticker {sprite.key}, found none."
        )
    return decoded.crop(box)


@cache
def background_similarity(sprite: Sprite) -> Mapping[str, float]:
    """Fraction of the sticker's pixels that are similar to each background."""
    small = image_of(sprite).copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return similar_fractions(small)


def decode_all(sprites: Sprites) -> None:
    """Decode every sticker and keep it in memory; raises DataError if one does not decode."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(background_similarity, sprites.all):
            pass


def digest_of(sprites: Sequence[Sprite]) -> str:
    """Of names, styles, keywords and images; independent of paths and times of files."""
    digest = hashlib.sha256()
    for sprite in sprites:
        content = hashlib.sha256(sprite.data.read()).hexdigest()
        of_captions = (sprite.key, sprite.name, sprite.style, sprite.keywords)
        digest.update(repr((*of_captions, content)).encode())
    return digest.hexdigest()


def _read(folder: Path, part: str, *, required: bool = True) -> list[Sprite]:
    tars = sorted(folder.glob(f"{part}-[0-9]*.tar"))
    if not tars and required:
        raise DataError(
            f"{folder}: expected tars of stickers such as {part}-00000.tar, found none; name the "
            "folder that contains them."
        )
    report = Report(str(folder), "stickers")
    items = [item for tar in tars for item in read_tar(folder, PurePosixPath(tar.name), report)]
    if required and (report.skipped or not items):
        raise DataError(f"{folder}: expected complete tars of stickers. {report.summary()}")
    return [_sprite_of(item, folder) for item in items]


def _sprite_of(item: Item, folder: Path) -> Sprite:
    name, style = item.fields.get("name"), item.fields.get("style")
    keywords = item.fields.get("keywords")
    if item.image is None or not isinstance(name, str) or style not in STYLES:
        raise DataError(
            f"{folder}: expected an image with the fields name and style ({', '.join(STYLES)}) "
            f"for the sticker {item.key}, found name {name!r} and style {style!r}."
        )
    words = [w for w in keywords if isinstance(w, str)] if isinstance(keywords, list) else []
    return Sprite(
        key=item.key,
        name=name,
        style=str(style),
        keywords=tuple(w for w in words if WORDS.fullmatch(w) and not _share_words(w, name)),
        licence=str(item.fields.get("licence", "")),
        source=str(item.fields.get("source", "")),
        data=item.image,
    )


def _share_words(one: str, other: str) -> bool:
    words = re.findall(r"\w+", one.lower())
    return bool(set(words) & set(re.findall(r"\w+", other.lower())))
