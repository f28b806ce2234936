"""Every error that a user can cause, as one tree.

    WuerstchenError
    ├── ConfigError       a key or a value of a config, before any work is done
    ├── DataError         images, captions, tars and tables that cannot be read or hold no pairs
    ├── ModelFolderError  a model folder that lacks a part, or whose part does not fit
    ├── SizeError         an image size that the three stages cannot make
    ├── TrainingError     a run that cannot start, or that diverged
    └── SaveError         a disk that is full or a folder that may not be written

Each message is one sentence or two: what was expected, what was found, where, what to do next.
The command line prints the message alone and leaves with exit code 2.
"""


def how_to_install(extra: str) -> str:
    """What to do where a package of an extra is missing; the project installs from its clone."""
    return f"install it with `pip install '.[{extra}]'` in a clone of this project"


class WuerstchenError(Exception):
    """Root of all errors that are explained to the user without a traceback."""


class ConfigError(WuerstchenError):
    """A config key is unknown, or its value cannot work."""


class DataError(WuerstchenError):
    """The training data cannot be read, or holds no usable pair."""


class ModelFolderError(WuerstchenError):
    """A model folder is incomplete, damaged or made of parts that do not fit each other."""


class SizeError(WuerstchenError):
    """An image size that does not fit the grid of the three stages."""


class TrainingError(WuerstchenError):
    """Training cannot start, or was stopped to protect the last good checkpoint."""


class SaveError(WuerstchenError):
    """Something could not be written; what stood there before is untouched."""
