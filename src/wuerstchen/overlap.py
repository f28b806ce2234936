"""Whether an output is one of the inputs, in one, or around one."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from wuerstchen.errors import ConfigError, WuerstchenError


def check_apart(
    inputs: Mapping[str, str | Path],
    output: Path,
    *,
    error: type[WuerstchenError] = ConfigError,
) -> None:
    """Refuse an output that is one of the inputs, in one, or around one.

    inputs  paths by what names them, such as `data.path`; empty and missing ones are ignored
    """
    for name, given in inputs.items():
        source = Path(given).expanduser() if str(given) else None
        if source is None or not source.exists():
            continue
        label = f"{name} {source}" if name else str(source)
        if is_within(output, source):
            raise error(
                f"{output}: expected a path outside {label}, which is an input; choose another "
                "path."
            )
        if is_within(source, output):
            raise error(
                f"{output}: expected a path that does not contain {label}, which is an input; "
                "choose another path."
            )


def is_within(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or would lie in it, by whatever names and links lead there."""
    real, around = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    if real.is_relative_to(around):
        return True
    for path in (real, *real.parents):  # other names: hard links, upper and lower case, mounts
        with suppress(OSError):
            if os.path.samefile(path, around):
                return True
    return False
