"""Drawings of emoji: vectors of an Iconify package, rendered; and 3D renders in a folder."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from PIL import Image
from pydantic import BaseModel, ValidationError

from wuerstchen.data.stickers.build.names import slug_of
from wuerstchen.errors import DataError, how_to_install
from wuerstchen.parsing import first_problem, read_bytes

SIDE = 256
"""Of a sticker, in pixels."""

MAX_RENDER = 1 << 20
"""Bytes of a 3D render; the largest has 40 KB."""


@dataclass(frozen=True, slots=True)
class Style:
    """Where the drawings of a style are from."""

    name: str
    prefix: str
    """Of the keys of its stickers."""
    licence: str
    source: str


STYLES = (
    Style("3D", "fluent-3d", "MIT", "laurentlahmy/fluent-emoji-optimized"),
    Style("flat", "fluent-emoji-flat", "MIT", "@iconify-json/fluent-emoji-flat"),
    Style("noto", "noto", "Apache-2.0", "@iconify-json/noto"),
    Style("blob", "noto-v1", "Apache-2.0", "@iconify-json/noto-v1"),
    Style("twemoji", "twemoji", "CC-BY-4.0", "@iconify-json/twemoji"),
    Style("emojione", "emojione", "CC-BY-4.0", "@iconify-json/emojione"),
)
"""In the order of the stickers of an object."""


class Drawings(Protocol):
    """The drawings of one style by the slugs of their names."""

    def __contains__(self, slug: str) -> bool: ...

    def draw(self, slug: str) -> Image.Image:
        """RGBA, 256 x 256 pixels, on a transparent background."""


class _Icon(BaseModel):
    body: str
    width: float | None = None
    height: float | None = None


class _Alias(BaseModel):
    parent: str
    hFlip: bool = False
    vFlip: bool = False
    rotate: int = 0


class _IconSet(BaseModel):
    """The file icons.json of an Iconify package."""

    prefix: str
    width: float
    height: float
    icons: dict[str, _Icon]
    aliases: dict[str, _Alias] = {}


@final
class VectorDrawings:
    """The icons of an Iconify package, rendered with resvg."""

    def __init__(self, icons: object) -> None:
        """
        icons  content of icons.json

        Raises DataError if a field is missing.
        """
        try:
            self._set = _IconSet.model_validate(icons)
        except ValidationError as error:
            raise DataError(
                "icons.json: expected the icons of an Iconify package, found an error at "
                f"{first_problem(error)}."
            ) from None

    def __contains__(self, slug: str) -> bool:
        return self._icon(slug) is not None

    def draw(self, slug: str) -> Image.Image:
        """Raises DataError if there is no such icon, or if it cannot be rendered."""
        icon = self._icon(slug)
        if icon is None:
            raise DataError(f"{self._set.prefix}: expected an icon {slug}, found none.")
        width, height = icon.width or self._set.width, icon.height or self._set.height
        return render(
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width:g} {height:g}" width="{SIDE}" height="{SIDE}">{icon.body}</svg>',
            f"{self._set.prefix}: {slug}",
        )

    def _icon(self, slug: str) -> _Icon | None:
        alias = self._set.aliases.get(slug)
        if alias is None:
            return self._set.icons.get(slug)
        # A mirrored drawing is another object's: that of a hand pointing left.
        moved = alias.hFlip or alias.vFlip or alias.rotate
        return None if moved else self._set.icons.get(alias.parent)


def render(svg: str, name: str) -> Image.Image:
    """An SVG in RGBA, 256 x 256 pixels. Raises DataError, which names `name`."""
    try:
        import resvg_py
    except ModuleNotFoundError as error:
        raise DataError(
            f"`wuerstchen stickers build` needs {error.name}, which is not installed; "
            f"{how_to_install('stickers')}."
        ) from None
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, skip_system_fonts=True)
    except ValueError as error:
        raise DataError(f"{name}: expected an SVG that renders, found: {error}.") from None
    with Image.open(io.BytesIO(bytes(png))) as image:
        return image.convert("RGBA")


@final
class RenderedDrawings:
    """The 3D renders of a folder, `assets/NAME/Default/3D_256.webp`."""

    def __init__(self, folder: Path) -> None:
        """
        folder  a checkout of https://github.com/laurentlahmy/fluent-emoji-optimized

        Raises DataError if it has no such renders.
        """
        self._paths: Mapping[str, Path] = {
            slug_of(path.parts[-3]): path
            for path in sorted(folder.glob("assets/*/Default/3D_256.webp"))
        }
        if not self._paths:
            raise DataError(
                f"{folder}: expected 3D renders such as assets/airplane/Default/3D_256.webp, found "
                "none; name a checkout of github.com/laurentlahmy/fluent-emoji-optimized."
            )

    def __contains__(self, slug: str) -> bool:
        return slug in self._paths

    def draw(self, slug: str) -> Image.Image:
        """Raises DataError if it does not decode or has another size."""
        path = self._paths[slug]
        try:
            with Image.open(io.BytesIO(read_bytes(path, MAX_RENDER))) as image:
                if image.size != (SIDE, SIDE):
                    raise ValueError(f"{image.width} x {image.height} pixels")
                return image.convert("RGBA")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path}: expected an image of {SIDE} x {SIDE} pixels, found: {error}; check the "
                "repository out again."
            ) from None
