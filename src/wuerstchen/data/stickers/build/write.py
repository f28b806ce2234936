"""Write the sticker set: webdataset tars by part, and a table of all stickers.

OUT/train-00000.tar …, test-cells-00000.tar, test-objects-00000.tar   KEY.webp, KEY.txt, KEY.json
OUT/index.tsv                                                         split, key, style, name, group
"""

import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from PIL import Image

from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.data.stickers.build.drawings import SIDE, STYLES, Drawings, Style
from wuerstchen.data.stickers.build.held_out import part_of
from wuerstchen.data.stickers.build.names import Emoji
from wuerstchen.data.stickers.sprites import Part
from wuerstchen.errors import SaveError
from wuerstchen.owned import is_empty

STICKERS_PER_TAR = 1000

QUALITY = 88
"""Of the lossy WebP colours, from 0 to 100; transparency is lossless."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a set contains."""

    stickers: Counter[str]
    """By part."""
    styles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """An object in a style."""

    emoji: Emoji
    style: Style
    part: Part

    @property
    def key(self) -> str:
        return f"{self.style.prefix}__{self.emoji.slug}"


def build_set(
    out: Path,
    emoji: Sequence[Emoji],
    drawings: Mapping[str, Drawings],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Built:
    """Render and write the stickers of all objects and styles; the same input gives the same files.

    out          a folder that is empty or does not exist; it is complete or not there
    emoji        in the order of the set
    drawings     by the name of the style
    on_progress  called with the number of finished stickers, and of all

    Raises SaveError if `out` is not empty or cannot be written.
    """
    if not is_empty(out):
        raise SaveError(
            f"{out}: expected an empty folder, or none, for the sticker set, found files; choose "
            "another OUT, or delete the folder."
        )
    cells = _cells(emoji, drawings)
    done = 0
    with _new_folder(out) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in get_args(Part):
            of_part = [cell for cell in cells if cell.part == part]
            for start in range(0, len(of_part), STICKERS_PER_TAR):
                some = of_part[start : start + STICKERS_PER_TAR]
                buffer = io.BytesIO()
                with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                    images = pool.map(lambda cell: _webp(drawings[cell.style.name], cell), some)
                    for cell, image in zip(some, images, strict=True):
                        _add_files(archive, cell, image)
                        done += 1
                        on_progress(done, len(cells))
                tar = f"{part}-{start // STICKERS_PER_TAR:05d}.tar"
                write_file(folder / tar, buffer.getvalue())
        write_file(folder / "index.tsv", _index(cells))
    styles = tuple(style.name for style in STYLES if style.name in drawings)
    return Built(Counter(cell.part for cell in cells), styles)


def _cells(emoji: Sequence[Emoji], drawings: Mapping[str, Drawings]) -> list[_Cell]:
    """All cells of the set; objects in the given order, then styles in theirs."""
    return [
        _Cell(each, style, part)
        for each in emoji
        for style in STYLES
        if style.name in drawings and each.slug in drawings[style.name]
        for part in [part_of(each.code, style.prefix)]
        if part != "none"
    ]


def _webp(drawings: Drawings, cell: _Cell) -> bytes:
    buffer = io.BytesIO()
    image: Image.Image = drawings.draw(cell.emoji.slug)
    image.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def _add_files(archive: tarfile.TarFile, cell: _Cell, image: bytes) -> None:
    captions = _captions(cell)
    emoji, style = cell.emoji, cell.style
    record: dict[str, object] = {
        "caption_origin": "templated from CLDR name and style",
        "captions": captions,
        "code": emoji.code,
        "group": emoji.group,
        "height": SIDE,
        "keywords": emoji.keywords,
        "licence": style.licence,
        "name": emoji.name,
        "set": "stickers",
        "source": style.source,
        "split": cell.part,
        "style": style.name,
        "subgroup": emoji.subgroup,
        "transparent": True,
        "width": SIDE,
    }
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    files = {"webp": image, "txt": captions[0].encode(), "json": text.encode()}
    for suffix, content in files.items():
        info = tarfile.TarInfo(f"{cell.key}.{suffix}")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


def _captions(cell: _Cell) -> list[str]:
    """Two wordings; the composer makes more."""
    name, style = cell.emoji.name, cell.style.name
    return [f"{name}, {style} style", f"{_article(style)} {style} emoji of {_article(name)} {name}"]


def _article(noun: str) -> str:
    """As in the published set, by the first letter alone."""
    return "an" if noun[:1].lower() in "aeiou" else "a"


def _index(cells: Sequence[_Cell]) -> bytes:
    rows = [("split", "key", "style", "name", "group")] + [
        (cell.part, cell.key, cell.style.name, cell.emoji.name, cell.emoji.group) for cell in cells
    ]
    return "".join("\t".join(row) + "\n" for row in rows).encode()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder next to `out` that takes its place at the end; deleted on failure."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    with explain_disk_errors(out):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with explain_disk_errors(out):
            if out.is_dir():
                out.rmdir()
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
