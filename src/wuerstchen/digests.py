"""SHA-256 of files, and of folders: a file SHA256SUMS in them, which `sha256sum -c` also checks."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMS = "SHA256SUMS"

THREADS = 4
"""Files hashed at a time; more are rarely faster than the disk."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """The digests of files by name, in sorted order. Raises OSError."""
    ordered = sorted(paths)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return dict(zip((p.name for p in ordered), pool.map(file_digest, ordered), strict=True))


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the digests of files, in the order given. Raises OSError."""
    return hashlib.sha256("".join(map(file_digest, paths)).encode()).hexdigest()


def sums_text(digests: Mapping[str, str]) -> str:
    """The content of SHA256SUMS; the names are paths from its folder."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def read_sums(folder: Path) -> dict[str, str]:
    """The digests in SHA256SUMS by name.

    Raises OSError if it cannot be read, ValueError if it is damaged.
    """
    text = (folder / SUMS).read_text(encoding="utf-8")
    found = [_LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    digests = {match[2]: match[1] for match in found if match is not None}
    if not digests or len(digests) < len(found) or not text.endswith("\n"):
        raise ValueError(f"{SUMS} is not a list of digests")
    return digests


def difference(paths: Iterable[Path], digests: Mapping[str, str]) -> str:
    """How the content of the first file that changed differs from its digest; or empty."""
    for name, digest in file_digests(paths).items():
        if digest != digests.get(name):
            return f"the content of {name} changed: its SHA-256 is not the recorded one"
    return ""
