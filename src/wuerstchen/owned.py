"""What the commands may replace or delete: only what this project wrote there itself.

Each folder that they work in has a mark (`marks.py`). A result in a marked folder is replaced only
if its content is one that the mark lists. Folders of state (runs, parts, encodings) are known by
the file in them that describes it, such as the config of a run.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from wuerstchen.digests import file_digest
from wuerstchen.errors import SaveError
from wuerstchen.marks import MARK, RUNS, Mark, mark_of, stamp

PARTS = "parts"
_STATE = (RUNS, PARTS)
"""Folders of state in a marked folder, whose files the mark does not list."""

_EARLIER_RUNS = ("a", "b-pretraining", "b", "c-pretraining", "c")
"""Folders of runs, by which model folders of earlier versions are known."""

_DEPTH = 3
"""Folders between a result and the folder with its mark: MODEL/lora/stage_c-peft/FILE."""


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
        mark.record(path, file_digest(source) if read else stamp(source))


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


def _mark_above(path: Path) -> Mark | None:
    """The mark of the folder that holds a result; None for state and in folders without a mark."""
    for folder in list(path.parents)[:_DEPTH]:
        if (mark := mark_of(folder)) is not None or folder.name in _STATE:
            return mark
    return None
