"""Writing a file aside and renaming it: a reader finds the old file or the new one, never half."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wuerstchen.errors import SaveError


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whose folder is made where it is missing.

    Raises SaveError where that cannot be; what stood at `path` is then untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            fsync_file(aside)
            aside.replace(path)
    except SaveError:
        with suppress(OSError):
            aside.unlink()
        raise


def fsync_file(path: Path) -> None:
    """See a file safely on the disk: else a power cut may leave its name, renamed, and no content.

    Raises OSError.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Errors of the disk while `path` is written become one sentence, a SaveError."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise SaveError(
            f"{path} could not be written ({error.strerror or error}); a file stands where a "
            "folder is needed: move it away or choose another folder."
        ) from error
    except OSError as error:
        raise SaveError(
            f"{path} could not be written ({error.strerror or error}); free some space or choose "
            "another folder."
        ) from error
