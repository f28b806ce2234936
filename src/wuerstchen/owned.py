"""What the commands may replace or delete: only what this project wrote there itself.

Each folder that they work in has a mark, a file of JSON lines. The first names the kind of the
folder; the others name each result, with the SHA-256 that it has from then on:

FOLDER/runs/.wuerstchen.jsonl   of a model folder or a prepared set
FOLDER/.wuerstchen.jsonl        of any other folder

A result in a marked folder is replaced only if its content is one that the mark lists. The mark of
a model is in `runs`, so that components that were copied or downloaded without their runs count as
foreign. Folders of state (runs, parts, encodings) are known by the file in them that
describes it, such as the config of a run.
"""

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from wuerstchen.digests import file_digest
from wuerstchen.errors import ConfigError, SaveError, WuerstchenError
from wuerstchen.parsing import ParseError, parse_object

MARK = ".wuerstchen.jsonl"
RUNS = "runs"

PARTS = "parts"
_STATE = (RUNS, PARTS)
"""Folders of state in a marked folder, whose files the mark does not list."""

Kind = Literal["model", "prepared set", "report"]

_EARLIER_RUNS = ("a", "b-pretraining", "b", "c-pretraining", "c")
"""Folders of runs, by which model folders of earlier versions are known."""

_DEPTH = 3
"""Folders between a result and the folder with its mark: MODEL/lora/stage_c-peft/FILE."""

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
        return (stamped and _stamp(path) in known) or (digested and file_digest(path) in known)

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


def check_state(folder: Path, what: str, is_own: Callable[[Path], bool]) -> None:
    """Raise SaveError if a folder of state contains foreign files."""
    if not is_empty(folder) and not is_own(folder):
        raise SaveError(
            f"{folder}: expected a new folder, or {what} that `wuerstchen` wrote, found other "
            "files; move them elsewhere, or choose another output."
        )


def is_empty(folder: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))


def check_replaceable(path: Path, advice: str = "move it elsewhere") -> None:
    """Refuse to replace a result in a marked folder that was not written there.

    Raises SaveError. Of files outside of marked folders nothing is known: their writers ask.
    """
    mark = _mark_above(path)
    if mark is None or not os.path.lexists(path):
        return
    files = sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else [path]
    for file in files:
        if (file == path or not file.is_dir() or file.is_symlink()) and not mark.wrote(file):
            raise SaveError(
                f"{file} was not written by `wuerstchen` and would be replaced; {advice}."
            )


def adopt(paths: Iterable[Path]) -> None:
    """Let results in marked folders be replaced, whoever wrote them."""
    for path in paths:
        if (mark := _mark_above(path)) is not None:
            mark.adopt(sorted(path.iterdir()) if path.is_dir() else [path])


def record(path: Path, content: bytes) -> None:
    """Record a result that is about to be put at `path`, if its folder has a mark."""
    if (mark := _mark_above(path)) is not None:
        mark.record(path, hashlib.sha256(content).hexdigest())


def record_file(path: Path, source: Path, *, read: bool = True) -> None:
    """The same for a file that is about to be moved or linked from `source` to `path`.

    read  False: by size, time and both ends, for files that are too large to be read once more;
          a change in the middle that keeps size and time is then not seen
    """
    if (mark := _mark_above(path)) is not None:
        mark.record(path, file_digest(source) if read else _stamp(source))


def is_output(folder: Path) -> bool:
    """Whether a folder holds a model, a report or an unfinished set, and so no images to read."""
    if (mark := mark_of(folder)) is not None:
        return mark.kind != "prepared set" or (folder / PARTS).exists()
    return any((folder / RUNS / run / "config.yaml").is_file() for run in _EARLIER_RUNS)


def remove_own(folder: Path, is_own: Callable[[str], bool]) -> None:
    """Delete the files whose names `is_own` accepts, and the folder if nothing is left.

    Links are deleted, not followed; other files and all folders stay.
    """
    if folder.is_symlink():
        return
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if is_own(path.name) and (path.is_symlink() or not path.is_dir()):
                path.unlink()
        rest = list(folder.iterdir())
        if all(path.name == MARK for path in rest):
            for path in rest:
                path.unlink()
            folder.rmdir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a temporary folder, if it is there, as long as this process uses it.

    Raises SaveError if another process does. The system releases what a killed process held.
    """
    try:
        number = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SaveError(
                    f"Another process is writing {folder.parent}; wait for it, or choose another "
                    "output."
                ) from None
        yield
    finally:
        os.close(number)


def check_lock(path: Path) -> None:
    """Refuse a file in place of a lock: locks are empty, and a link may lead anywhere."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise SaveError(
                f"{path}: expected an empty lock file, found something else; move it elsewhere."
            )


def check_apart(
    inputs: Mapping[str, str | Path],
    output: Path,
    *,
    error: type[WuerstchenError] = ConfigError,
) -> None:
    """Refuse an output that is one of the inputs, in one, or around one.

    inputs  paths by what names them, such as `data.path`; empty and missing ones are ignored
    """
    for name, given in inputs.items():
        source = Path(given).expanduser() if str(given) else None
        if source is None or not source.exists():
            continue
        label = f"{name} {source}" if name else str(source)
        if is_within(output, source):
            raise error(
                f"{output}: expected a path outside {label}, which is an input; choose another "
                "path."
            )
        if is_within(source, output):
            raise error(
                f"{output}: expected a path that does not contain {label}, which is an input; "
                "choose another path."
            )


def is_within(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or would lie in it, by whatever names and links lead there."""
    real, around = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    if real.is_relative_to(around):
        return True
    for path in (real, *real.parents):  # other names: hard links, upper and lower case, mounts
        with suppress(OSError):
            if os.path.samefile(path, around):
                return True
    return False


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


def _stamp(path: Path) -> str:
    """Size, time, and a digest of both ends of a file; a hard link and a renaming keep them."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        ends = file.read(_ENDS)
        file.seek(max(found.st_size - _ENDS, len(ends)))
        digest = hashlib.sha256(ends + file.read(_ENDS)).hexdigest()
    return f"stat:{found.st_size}:{found.st_mtime_ns}:{digest}"


def _mark_above(path: Path) -> Mark | None:
    """The mark of the folder that holds a result; None for state and in folders without a mark."""
    for folder in list(path.parents)[:_DEPTH]:
        if (mark := mark_of(folder)) is not None or folder.name in _STATE:
            return mark
    return None
