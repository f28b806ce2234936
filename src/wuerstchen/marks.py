"""The mark of a folder: which files in it this project wrote, with what content.

A mark is a file of JSON lines. The first names the kind of the folder; the others name each result,
with the SHA-256 that it has from then on:

FOLDER/runs/.wuerstchen.jsonl   of a model folder or a prepared set
FOLDER/.wuerstchen.jsonl        of any other folder

The mark of a model is in `runs`, so that components that were copied or downloaded without their
runs count as foreign.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from wuerstchen.digests import file_digest
from wuerstchen.errors import SaveError
from wuerstchen.parsing import ParseError, parse_object

MARK = ".wuerstchen.jsonl"
RUNS = "runs"

Kind = Literal["model", "prepared set", "report"]

_ENDS = 2**20
"""Bytes at the beginning and at the end of a large file by which it is known again."""


@dataclass(slots=True)
class _Content:
    """What has been read of a mark's file, so that it is not read again for each file written."""

    changed: int = 0
    size: int = 0
    end: int = 0
    """Of the last complete line."""
    last: bytes = b""
    kind: str = ""
    known: dict[str, set[str]] = field(default_factory=dict)


_READ: dict[tuple[str, int, int], _Content] = {}
"""By path, device and inode."""

_READING = threading.Lock()


@final
class Mark:
    """The mark of a folder."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self._path = folder, path

    @property
    def kind(self) -> str:
        """The kind of the folder; empty if the process that made the mark was killed."""
        content = self._content()
        return "" if content is None else content.kind

    def wrote(self, path: Path) -> bool:
        """Whether a file has content that was written there."""
        if path.is_symlink() or not path.is_file():
            return False
        known = self._known(path)
        stamped = any(each.startswith("stat:") for each in known)
        digested = any(not each.startswith("stat:") for each in known)
        return (stamped and stamp(path) in known) or (digested and file_digest(path) in known)

    def record(self, path: Path, identity: str) -> None:
        """Add a file, before it is put in place: a kill in between must not make it foreign."""
        self._append({"file": self._name(path), "is": identity})

    def adopt(self, paths: Iterable[Path]) -> None:
        """Record files as they are: earlier versions wrote them, or they may be replaced."""
        for path in paths:
            if path.is_file() and not path.is_symlink():
                self.record(path, file_digest(path))

    def begin(self, kind: Kind) -> None:
        if not self.kind:
            self._append({"folder": kind})

    def _known(self, path: Path) -> set[str]:
        content = self._content()
        return set() if content is None else set(content.known.get(self._name(path), ()))

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def _content(self) -> _Content | None:
        """What the file says; of a file that only grew, only the new lines are read."""
        try:
            with (
                os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file,
                _READING,
            ):
                found = os.fstat(file.fileno())
                key = (str(self._path), found.st_dev, found.st_ino)
                content = _READ.setdefault(key, _Content())
                if (content.changed, content.size) == (found.st_mtime_ns, found.st_size):
                    return content
                file.seek(content.end - len(content.last))
                if found.st_size <= content.size or file.read(len(content.last)) != content.last:
                    content = _READ[key] = _Content()
                    file.seek(0)
                _add_lines(content, file.read())
                content.changed, content.size = found.st_mtime_ns, found.st_size
                return content
        except OSError:
            return None

    def _append(self, values: Mapping[str, str]) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(self._path, flags), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            start = "" if file.read(1) in (b"", b"\n") else "\n"
            # One write to the end of the file, so that two writers do not mix their lines.
            file.write(f"{start}{json.dumps(values)}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def mark_of(folder: Path) -> Mark | None:
    """The mark of a folder; None if it has none."""
    paths = [folder / RUNS / MARK, *([folder / MARK] if folder.name != RUNS else [])]
    found = (path for path in paths if path.is_file() and not path.is_symlink())
    return next((Mark(folder, path) for path in found), None)


def make_mark(folder: Path, kind: Kind) -> Mark:
    """Mark a folder, which is made if necessary. Raises SaveError."""
    if kind == "report" and (found := mark_of(folder)) is not None:
        return found  # reports may be written into any folder
    path = (folder if kind == "report" else folder / RUNS) / MARK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mark = Mark(folder, path)
        mark.begin(kind)
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        raise SaveError(
            f"{folder} could not be written ({error.strerror or error}); "
            + ("a file is where a folder is needed: move it" if in_the_way else "free some space")
            + " or choose another folder."
        ) from error
    return mark


def stamp(path: Path) -> str:
    """Size, time, and a digest of both ends of a file; a hard link and a renaming keep them."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        ends = file.read(_ENDS)
        file.seek(max(found.st_size - _ENDS, len(ends)))
        digest = hashlib.sha256(ends + file.read(_ENDS)).hexdigest()
    return f"stat:{found.st_size}:{found.st_mtime_ns}:{digest}"


def _add_lines(content: _Content, data: bytes) -> None:
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            content.end += len(line)
            content.last = line
        with suppress(ParseError):  # truncated by a kill
            values = parse_object(line)
            if "folder" in values:
                content.kind = content.kind or str(values["folder"])
            elif "file" in values:
                content.known.setdefault(str(values["file"]), set()).add(str(values.get("is")))
