"""The packages of the extra `study`."""

from collections.abc import Iterator
from contextlib import contextmanager

from wuerstchen.errors import ConfigError, how_to_install


@contextmanager
def requires_study() -> Iterator[None]:
    """Turn the absence of a package of the extra `study` into a ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("scipy", "fastapi", "starlette", "uvicorn"):
            raise
        raise ConfigError(
            f"Expected the package {package}, found none; {how_to_install('study')}."
        ) from None
