"""Where `--out` puts images."""

import os
import re
from pathlib import Path

from wuerstchen.errors import ConfigError, SaveError

NAME_LENGTH = 60
"""Characters of a prompt that enter a file name."""


def check_target(out: str | None) -> None:
    """Refuse an `--out` that cannot be written before the work, not after it."""
    if out is not None and not is_folder(out) and Path(out).suffix.lower() != ".png":
        raise ConfigError(
            f"--out must be a file that ends in .png, or a folder (one that exists, or a name "
            f"ending in /), found {out!r}."
        )
    folder = Path(out or ".") if out is None or is_folder(out) else Path(out).parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SaveError(
            f"Expected a writable folder, found {str(folder)!r}, which is "
            f"{'write-protected' if folder.is_dir() else 'a file'}; choose another --out."
        )


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
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
