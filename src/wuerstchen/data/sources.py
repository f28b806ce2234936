"""Look at what data.path names and hand it to the reader of its kind."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal

from wuerstchen.data.folder import read_folder
from wuerstchen.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from wuerstchen.data.items import Item
from wuerstchen.data.report import Report
from wuerstchen.data.table import TABLE_NAMES, read_tables
from wuerstchen.data.tars import read_tars
from wuerstchen.errors import DataError

Kind = Literal["table", "tars", "folder"]

_EXPECTED = (
    "a folder of images with same-name .txt files, a folder with metadata.jsonl or "
    "metadata.csv, or webdataset tars (a .tar, a folder of them, shards-*.tar, {00000..00012}.tar)"
)


PREPARED = "prepared.json"
"""The file that makes a folder a prepared set (`wuerstchen.data.prepared`)."""


def is_prepared(folder: Path) -> bool:
    return (folder / PREPARED).is_file()


@dataclass(frozen=True, slots=True)
class Source:
    """What was found at a path, recognised and not yet read."""

    root: Path
    files: list[PurePosixPath]
    """Those that count, relative to `root`."""
    kind: Kind
    report: Report
    """Begun: what is beside the point is in it."""

    def items(self) -> list[Item]:
        """Everything that is there, images not yet decoded."""
        match self.kind:
            case "table":
                return read_tables(self.root, self.files, self.report)
            case "tars":
                return read_tars(self.root, self.files, self.report)
            case "folder":
                return read_folder(self.root, self.files)


def find_source(path: str) -> Source:
    """Recognise what is at `path`.

    Raises DataError where nothing is there or nothing is recognised.
    """
    if not path:
        raise DataError(f"data.path is empty; set data.path=PATH to {_EXPECTED}.")
    root = Path(path).expanduser()
    if root.is_dir():
        return _find_in_directory(root, path)
    if root.is_file():
        return _find_tars([root], path)
    return _find_tars(_expand(str(root)), path)


def _find_in_directory(root: Path, path: str) -> Source:
    """The first kind that is there; what belongs to another kind is reported."""
    files = _list_files(root)
    tars = [file for file in files if file.suffix == ".tar"]
    if any(file.name in TABLE_NAMES for file in files):
        report = Report(path, "images with a table of captions")
        for tar in tars:
            report.skip("beside a table, which alone is read", str(tar))
        return Source(root, files, "table", report)
    if tars:
        report = Report(path, _count(len(tars), "webdataset tar"))
        for item in read_folder(root, [file for file in files if file.suffix != ".tar"]):
            report.skip("beside tars, which alone are read", item.key)
        return Source(root, tars, "tars", report)
    if any(file.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES for file in files):
        return Source(root, files, "folder", Report(path, "images with caption files"))
    found = _count(len(files), "file")
    raise DataError(f"{path}: expected {_EXPECTED}; found {found} and none of these kinds.")


def _find_tars(tars: Sequence[Path], path: str) -> Source:
    others = [str(tar) for tar in tars if tar.suffix != ".tar"]
    if others:
        raise DataError(f"{path}: expected {_EXPECTED}; found {', '.join(others[:3])}.")
    # Splits may be named by folders ({train,test}/0.tar), but not by those above all the tars.
    root = Path(os.path.commonpath([tar.absolute().parent for tar in tars]))
    names = [PurePosixPath(tar.absolute().relative_to(root).as_posix()) for tar in tars]
    return Source(root, names, "tars", Report(path, _count(len(tars), "webdataset tar")))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _list_files(root: Path) -> list[PurePosixPath]:
    """All visible files under `root`, relative and sorted; links to folders are followed once."""
    seen: set[str] = set()
    found: list[PurePosixPath] = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        inside = PurePosixPath(Path(folder).relative_to(root).as_posix())
        found += [inside / name for name in names if not name.startswith(".")]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: expected a folder that can be read, found: {error}.")


def _expand(pattern: str) -> list[Path]:
    """Files that a brace range and wildcards stand for, sorted, each once."""
    words = list(_expand_braces(pattern))
    names = list(chain.from_iterable(_matches(word) for word in words))
    # What wildcards find is there, if only as a link to nothing, which then counts as unreadable.
    missing = [word for word in words if not glob.has_magic(word) and not Path(word).exists()]
    if missing or not names:
        lost = ", ".join(missing[:3]) or pattern
        raise DataError(f"{pattern}: expected {_EXPECTED}; nothing is there: {lost}.")
    return [Path(name) for name in sorted(set(names))]


def matches(pattern: str, path: Path) -> bool:
    """Whether a brace range with wildcards would name a file at `path`, were one there."""
    there = Path(os.path.abspath(path)).parts
    words = (Path(os.path.abspath(word)).parts for word in _expand_braces(pattern))
    return any(_match(parts, there) for parts in words)


def _match(words: Sequence[str], names: Sequence[str]) -> bool:
    if not words:
        return not names
    if words[0] == "**":
        return any(_match(words[1:], names[start:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatch(names[0], words[0]) and _match(words[1:], names[1:])


def _matches(word: str) -> list[str]:
    return glob.glob(word, recursive=True) if glob.has_magic(word) else [word]


def _expand_braces(pattern: str) -> Iterator[str]:
    """Every word that {00000..00012} and {a,b} stand for, as a shell expands them."""
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace is None:
        yield pattern
        return
    span = re.fullmatch(r"(\d+)\.\.(\d+)", brace[1])
    words = brace[1].split(",")
    if span is not None:
        first, last = int(span[1]), int(span[2])
        words = [f"{n:0{len(span[1])}d}" for n in range(first, last + 1)]
    for word in words:
        yield from _expand_braces(pattern[: brace.start()] + word + pattern[brace.end() :])
