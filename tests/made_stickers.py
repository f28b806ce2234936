"""A small set of stickers: the shape shows the style, the colour the object."""

import json
from pathlib import Path

from made_data import to_bytes, write_tar
from PIL import Image, ImageDraw

COLOURS = {
    "cat": (201, 3, 7),
    "dog": (5, 199, 11),
    "fire engine": (13, 17, 197),
    "scissors": (211, 197, 2),
    "octopus": (190, 5, 180),
}
"""Of each object."""

STYLES = ("flat", "noto", "blob")


def sticker(name: str, style: str, side: int = 64) -> Image.Image:
    """RGBA, with a transparent margin that differs between the sides."""
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen, box = ImageDraw.Draw(image), (8, 4, side - 12, side - 6)
    if style == "flat":
        pen.rectangle(box, fill=COLOURS[name])
    elif style == "noto":
        pen.ellipse(box, fill=COLOURS[name])
    else:
        pen.polygon([(box[0], box[3]), (box[2], box[3]), (side // 2, box[1])], fill=COLOURS[name])
    return image


def write_set(
    folder: Path, train: list[tuple[str, str]], cells: list[tuple[str, str]] | None = None
) -> Path:
    """Tars of these pairs of object and style."""
    parts = {"train": train, "test-cells": cells or []}
    for part, pairs in parts.items():
        files: dict[str, bytes | str] = {}
        for name, style in pairs:
            key = f"{style}__{name.replace(' ', '-')}"
            fields = {"name": name, "style": style, "keywords": ["pet", "friend", name, "✓"]}
            files[f"{key}.webp"] = to_bytes(sticker(name, style), "WEBP", lossless=True)
            files[f"{key}.txt"] = f"{name}, {style} style"
            files[f"{key}.json"] = json.dumps(fields)
        if files:
            write_tar(folder / f"{part}-00000.tar", files)
    return folder


ALL = [(name, style) for name in COLOURS for style in STYLES]
"""Every cell."""

HELD_OUT = [("cat", "blob"), ("dog", "noto")]

TRAIN = [cell for cell in ALL if cell not in HELD_OUT]
