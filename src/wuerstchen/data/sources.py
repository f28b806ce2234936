"""Find what kind of source data.path names, and read its items."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

from wuerstchen.data.file_kinds import (
    is_table,
    is_tar,
    is_unread_table,
    kind_of,
    left_out,
    other_kind,
)
from wuerstchen.data.folder import read_folder, read_tables
from wuerstchen.data.items import Item
from wuerstchen.data.report import Report
from wuerstchen.data.tars import read_tars
from wuerstchen.errors import DataError
from wuerstchen.owned import is_output

Kind = Literal["table", "tars", "folder"]

_EXPECTED = (
    "a folder of images with same-name .txt files, a folder with metadata.jsonl or "
    "metadata.csv, or webdataset tars (a .tar, a folder of them, shards-*.tar, {00000..00012}.tar)"
)

_MOST_PATTERNS = 1_000_000

PREPARED = "prepared.json"
"""Every prepared set has this file (`wuerstchen.data.prepared`)."""


def is_prepared(folder: Path) -> bool:
    return os.path.isfile(folder / PREPARED)  # False, not an error, for a name that is too long


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a source, not yet read."""

    root: Path
    files: list[PurePosixPath]
    """Relative to `root`; only those that are read."""
    kind: Kind
    report: Report
    """Already lists the files that are skipped."""

    def items(self, *, caption_per_line: bool = False) -> list[Item]:
        """All items, their images not yet decoded.

        caption_per_line  every line of a .txt file is a caption; otherwise all of it is one
        """
        if self.kind == "table":
            return read_tables(self.root, self.files, self.report)
        read = read_folder if self.kind == "folder" else read_tars
        return read(self.root, self.files, self.report, caption_per_line=caption_per_line)


def find_source(path: str) -> Source:
    """The source at `path`; DataError if nothing is there or nothing is recognised."""
    if not path:
        raise DataError(f"data.path is empty; set data.path=PATH to {_EXPECTED}.")
    root = Path(os.path.expanduser(path))
    if os.path.isdir(root):
        return _find_in_folder(root, path)
    return _find_tars([root] if os.path.isfile(root) else _expand(str(root)), path)


def _find_in_folder(root: Path, path: str) -> Source:
    """A table takes precedence over tars, and tars over loose images."""
    report = Report(path, "images with caption files")
    files = _list_files(root, report)
    tars = [file for file in files if is_tar(file)]
    if any(map(is_table, files)):
        report.kind = "images with a table of captions"
        for tar in tars:
            report.skip("next to a table, which takes precedence", str(tar))
        return Source(root, [file for file in files if not is_tar(file)], "table", report)
    if tars:
        report.kind = _count(len(tars), "webdataset tar")
        _report_next_to_tars(root, [file for file in files if not is_tar(file)], report)
        return Source(root, tars, "tars", report)
    if any(kind_of(file) in ("image", "unsupported") for file in files):
        return Source(root, files, "folder", report)
    names = ", ".join(map(str, files[:3])) + (", …" if len(files) > 3 else "")
    raise DataError(
        f"{path}: expected {_EXPECTED}; found {_count(len(files), 'file')}, but none of these"
        f"{f' ({names})' if files else ''}."
    )


def _report_next_to_tars(root: Path, files: Sequence[PurePosixPath], report: Report) -> None:
    for file in filter(is_unread_table, files):  # img2dataset writes 00000.parquet next to its tar
        report.leave_out(other_kind(file))
    rest = [file for file in files if not is_unread_table(file)]
    for item in read_folder(root, rest, report):
        report.skip("next to tars, which take precedence", item.key)


def _find_tars(tars: Sequence[Path], path: str) -> Source:
    others = [str(tar) for tar in tars if not is_tar(PurePosixPath(tar))]
    if others:
        raise DataError(f"{path}: expected {_EXPECTED}; found {', '.join(others[:3])}.")
    # A folder may name the split ({train,test}/0.tar), but not a parent of all tars.
    root = Path(os.path.commonpath([tar.absolute().parent for tar in tars]))
    names = [PurePosixPath(tar.absolute().relative_to(root).as_posix()) for tar in tars]
    return Source(root, names, "tars", Report(path, _count(len(tars), "webdataset tar")))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _list_files(root: Path, report: Report) -> list[PurePosixPath]:
    """All files under `root` that may be data, relative and sorted; the others are counted.

    Links to folders are followed once.
    """
    seen: set[str] = set()
    found: list[PurePosixPath] = []

    def skip_unreadable(error: OSError) -> None:
        if Path(error.filename) == root:
            raise DataError(f"{root}: expected a folder that can be read, found: {error}.")
        report.skip("folder cannot be read", str(Path(error.filename).relative_to(root)))

    def keep(name: str) -> bool:
        if (label := left_out(name)) is not None:
            report.leave_out(label)
        return label is None

    def leave_output(folder: str, name: str) -> bool:
        if found := is_output(Path(folder, name)):
            report.leave_out(f"{name}, a folder that `wuerstchen` writes")
        return found

    for folder, folders, names in os.walk(root, followlinks=True, onerror=skip_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if keep(name) and not leave_output(folder, name)]
        inside = PurePosixPath(Path(folder).relative_to(root).as_posix())
        found += [inside / name for name in names if keep(name)]
    return sorted(found)


def _expand(pattern: str) -> list[Path]:
    """The files that match braces and wildcards, sorted, each once."""
    patterns = list(islice(_expand_braces(pattern), _MOST_PATTERNS + 1))
    if len(patterns) > _MOST_PATTERNS:
        raise DataError(
            f"{pattern}: expected braces that stand for at most {_MOST_PATTERNS:,} names, found "
            "more; use a smaller range, or a wildcard such as *.tar."
        )
    names = [name for each in patterns for name in glob.glob(each, recursive=True)]
    # A dangling link that a wildcard matches is not missing here; it is reported as unreadable.
    missing = [each for each in patterns if not glob.has_magic(each) and not os.path.exists(each)]
    if missing or not names:
        lost = ", ".join(missing[:3]) or pattern
        raise DataError(f"{pattern}: expected {_EXPECTED}; not found: {lost}.")
    return [Path(name) for name in sorted(set(names))]


def pattern_matches(pattern: str, path: Path) -> bool:
    """Whether braces and wildcards would match a file at `path`, which need not exist."""
    names = Path(os.path.abspath(path)).parts
    expanded = islice(_expand_braces(pattern), _MOST_PATTERNS)
    patterns = (Path(os.path.abspath(each)).parts for each in expanded)
    return any(_parts_match(each, names) for each in patterns)


def _parts_match(patterns: Sequence[str], names: Sequence[str]) -> bool:
    if not patterns:
        return not names
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        return any(_parts_match(rest, names[start:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatch(names[0], first) and _parts_match(rest, names[1:])


def _expand_braces(pattern: str) -> Iterator[str]:
    """Every text that {00000..00012}, {9..1} and {a,b} stand for, as a shell expands them."""
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace is None:
        yield pattern
        return
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", brace[1])
    options: Iterable[str] = brace[1].split(",")
    if span is not None:
        first, last = int(span[1]), int(span[2])
        padded = any(len(digits) > 1 and digits.startswith("0") for digits in span.groups())
        width = max(map(len, span.groups())) if padded else 1
        step = 1 if first <= last else -1
        options = (f"{n:0{width}d}" for n in range(first, last + step, step))
    for option in options:
        yield from _expand_braces(pattern[: brace.start()] + option + pattern[brace.end() :])
