"""Locks of files and folders, which the system releases when a process ends."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wuerstchen.errors import SaveError


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
