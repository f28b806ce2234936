"""`wuerstchen generate` in the process of the tests, and what it recorded in its images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, PngImagePlugin

FEW = ("--steps", "2", "--decoder-steps", "2")


class Done(NamedTuple):
    code: int
    out: list[str]
    error: str


Generate = Callable[..., Done]


def pixels_of(path: Path | str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def altered(path: Path, new: str, **changes: object) -> str:
    """A copy with other settings; None removes a key."""
    with Image.open(path) as image:
        settings = {**json.loads(image.text["wuerstchen"]), **changes}
        chunks = PngImagePlugin.PngInfo()
        kept = {key: value for key, value in settings.items() if value is not None}
        chunks.add_text("wuerstchen", json.dumps(kept))
        image.save(new, pnginfo=chunks)
    return new
