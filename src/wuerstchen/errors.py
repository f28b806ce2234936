"""Every error that a user can cause, as one tree.

    WuerstchenError
    ├── ConfigError       an invalid key or value of a config, before any work is done
    ├── DataError         unreadable images, captions, tars or tables, or none with captions
    ├── ModelFolderError  a model folder with a missing or incompatible component
    ├── SizeError         an image size that the three stages cannot generate
    ├── TrainingError     a run that cannot start, or that diverged
    └── SaveError         a full disk or a folder without write permission

Each message is one or two sentences: what was expected, what was found, where, what to do next.
The command line prints only the message and exits with code 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager


def how_to_install(extra: str) -> str:
    """Advice for a missing package of an extra; the project is installed from a clone."""
    return f"install it with `pip install '.[{extra}]'` in a clone of this project"


class WuerstchenError(Exception):
    """Base class of all errors that users see without a traceback."""


class ConfigError(WuerstchenError):
    """A config key is unknown, or its value is invalid."""


class DataError(WuerstchenError):
    """The training data cannot be read, or has no image with a caption."""


class ModelFolderError(WuerstchenError):
    """A model folder is incomplete, damaged, or its components do not fit each other."""


class SizeError(WuerstchenError):
    """An image size that does not fit the grid of the three stages."""


class TrainingError(WuerstchenError):
    """Training cannot start, or was stopped to protect the last good checkpoint."""


class SaveError(WuerstchenError):
    """A file could not be written; the previous one is untouched."""


class UnusedWarning(UserWarning):
    """Something in an input says what is not used; the message names it."""


@contextmanager
def os_errors_as(kind: type[WuerstchenError]) -> Iterator[None]:
    """Turn what a path can raise into an error of this tree: in a context, or as a decorator.

    That is an OSError, such as a name that is too long or a folder that may not be entered, and
    other errors of names that no system allows.
    """
    try:
        yield
    except BrokenPipeError:  # not a path: whoever reads the output has read enough
        raise
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise kind(
            f"{what}expected a file or folder that can be used, found: {error.strerror or error}; "
            "correct the path, or its permissions."
        ) from error
    except (ValueError, RuntimeError) as error:  # pathlib raises the latter for circular links
        unusable = isinstance(error, UnicodeEncodeError) or any(
            words in str(error) for words in ("embedded null", "Symlink loop")
        )
        if not unusable:
            raise
        raise kind(
            f"Expected the path of a file or folder, found one that no system allows ({error}); "
            "correct it."
        ) from error
