"""Digests by which a receipt says what ran: SHA-256 of the code and of texts."""

import hashlib
from functools import lru_cache
from pathlib import Path

import wuerstchen


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Of the names and contents of all Python files of this package."""
    root = Path(wuerstchen.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """Of a text, such as a resolved config; empty for an empty one, which stands for none."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
