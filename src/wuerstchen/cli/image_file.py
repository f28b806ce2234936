"""Image files that commands read."""

from pathlib import Path

from PIL import Image

from wuerstchen.data.images import open_image
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError, DataError
from wuerstchen.parsing import check_regular

WHOLE = 10**9
"""A side that no image reaches: none is decoded at a reduced size."""


def read_image(path: Path, option: str, background: str = "white") -> tuple[Image.Image, bytes]:
    """The upright RGB image in a file, and the content of the file.

    Raises ConfigError for what is no image that can be read.
    """
    try:
        check_regular(path)
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{option}: {str(path)!r} cannot be read ({reason}).") from None
    try:
        return open_image(content, WHOLE, background).image, content
    except DataError as error:
        raise ConfigError(f"{option}: {str(path)!r}: {printable(str(error), 300)}") from None
