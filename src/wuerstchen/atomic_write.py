"""Atomic writes: a reader finds the old file or the new one, never a partial one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wuerstchen.errors import SaveError


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its folder if necessary.

    Raises SaveError; the previous file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            fsync_file(temporary)
            temporary.replace(path)
    except SaveError:
        with suppress(OSError):
            temporary.unlink()
        raise


def fsync_file(path: Path) -> None:
    """Sync a file to disk: without this, a power cut after the rename may leave it empty.

    Raises OSError.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn OSErrors while writing `path` into a SaveError."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise SaveError(
            f"{path} could not be written ({error.strerror or error}); a file is where a "
            "folder is needed: move it or choose another folder."
        ) from error
    except OSError as error:
        raise SaveError(
            f"{path} could not be written ({error.strerror or error}); free some space or choose "
            "another folder."
        ) from error
