"""Where `--out` puts images."""

import os
from pathlib import Path

from wuerstchen.errors import ConfigError, SaveError


def check_target(out: str | None) -> None:
    """Raise an error where `--out` cannot be written, before the work is done and not after."""
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
            f"Expected a folder that may be written to, found {str(folder)!r}, which is "
            f"{'write-protected' if folder.is_dir() else 'a file'}; choose another --out."
        )


def image_path(out: str | None, prompt: str, seed: int, *, several: bool) -> Path:
    """Where an image goes. A file that `--out` does not name itself is never replaced."""
    from wuerstchen.inference.png_metadata import file_stem, unused

    if out is None or is_folder(out):
        return unused(Path(out or ".") / f"{file_stem(prompt, seed)}.png")
    if several:
        return unused(Path(out).with_stem(f"{Path(out).stem}-{seed}"))
    return Path(out)


def is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir()
