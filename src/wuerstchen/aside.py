"""Writing a file aside and renaming it: a reader finds the old file or the new one, never half."""

import os
from contextlib import suppress
from pathlib import Path

from wuerstchen.errors import SaveError


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whose folder is made where it is missing.

    Raises SaveError where that cannot be; what stood at `path` is then untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise SaveError(
            f"{path} could not be written ({error.strerror}); free some space or choose another "
            "folder."
        ) from error
