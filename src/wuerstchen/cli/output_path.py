"""Where `--out` puts images."""

import os
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from wuerstchen import overlap, owned
from wuerstchen.atomic_write import write_file, write_new_file
from wuerstchen.errors import ConfigError, SaveError

NAME_LENGTH = 60
"""Characters of a prompt that enter a file name."""


def check_target(out: str | None, sources: Mapping[str, Path | None] | None = None) -> None:
    """Refuse an `--out` that cannot be written before the work, not after it.

    sources  images that are read, by option, which are not replaced
    """
    if out is not None and not is_folder(out) and Path(out).suffix.lower() != ".png":
        raise ConfigError(
            f"--out must be a file that ends in .png, or a folder (one that exists, or a name "
            f"ending in /), found {out!r}."
        )
    read = {option: path for option, path in (sources or {}).items() if path is not None}
    if out is not None and read and not is_folder(out):
        overlap.check_apart(read, Path(out))
    folder = Path(out or ".") if out is None or is_folder(out) else Path(out).parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SaveError(
            f"Expected a writable folder, found {str(folder)!r}, which is "
            f"{'write-protected' if folder.is_dir() else 'a file'}; choose another --out."
        )


def check_free(target: Path | None, *, overwrite: bool) -> bool:
    """Whether there is a file at `--out` to replace; raises SaveError without `--overwrite`."""
    if target is None or target.is_dir() or not os.path.lexists(target):
        return False
    if not overwrite:
        raise SaveError(f"{target} exists already; choose another --out, or pass --overwrite.")
    return True


def write_image(path: Path, content: bytes, *, replaces: bool) -> Path:
    """Write an image; returns its path, which is another one if this one is taken meanwhile.

    replaces  whether the file at `path` is replaced
    """
    if replaces:
        owned.adopt([path])
        write_file(path, content)
        return path
    return next(free for free in _names(path) if write_new_file(free, content))


def image_path(out: str | None, prompt: str, seed: int, *, several: bool) -> Path:
    """The path of an image. Only a file that `--out` names itself is replaced."""
    if out is None or is_folder(out):
        words = re.sub(r"\W+", "-", prompt.lower()).strip("-_")[:NAME_LENGTH].rstrip("-_")
        return _unused(Path(out or ".") / f"{words or 'image'}-{seed}.png")
    if several:
        return _unused(Path(out).with_stem(f"{Path(out).stem}-{seed}"))
    return Path(out)


def is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def _unused(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist yet."""
    return next(free for free in _names(path) if not os.path.lexists(free))


def _names(path: Path) -> Iterator[Path]:
    """`path`, path-2, path-3, ..."""
    yield path
    for number in count(2):
        yield path.with_stem(f"{path.stem}-{number}")
