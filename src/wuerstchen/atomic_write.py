"""Atomic writes: a reader finds the old file or the new one, never a partial one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wuerstchen import owned
from wuerstchen.errors import SaveError


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its folder if necessary.

    Raises SaveError; the previous file is then untouched. So is one in a marked folder (`owned`)
    that was not written there.
    """
    with explain_disk_errors(path):
        owned.check_replaceable(path)
        with temporary_file(path) as temporary:
            temporary.write_bytes(content)
            fsync_file(temporary)
            owned.record(path, content)
            temporary.replace(path)


def write_new_file(path: Path, content: bytes) -> bool:
    """The same for a new file; False, and nothing is written, if there is one already."""
    with explain_disk_errors(path), temporary_file(path) as temporary:
        temporary.write_bytes(content)
        fsync_file(temporary)
        owned.record(path, content)
        return move_new(temporary, path)


def move_new(temporary: Path, path: Path) -> bool:
    """Move a file to a name that must be free, even if another process takes it just now."""
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: take the name first, then replace it
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            return False
        temporary.replace(path)
        return True


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A new empty file next to `path`, whose folder is made if necessary; deleted at the end.

    Its name is random, and it is made only if nothing has that name: no other file is opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def append_to(path: Path, content: bytes) -> None:
    """Append to a file, which is made if necessary; a link is not followed. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
        file.write(content)


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
