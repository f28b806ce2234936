"""Small folders of images, and a study of them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from wuerstchen.cli import app

Serve = Callable[..., tuple[subprocess.Popen[str], list[str]]]
"""The fixture `serve`: a study, raters and options to its process and the links that it printed."""

COLOURS = ("red", "green", "blue", "orange", "purple", "brown")


def image_folder(folder: Path, shape: str, count: int = 6, side: int = 64) -> Path:
    """Images of a shape in as many colours, with their prompts, and with metadata that tells."""
    folder.mkdir()
    for index, colour in enumerate(COLOURS[:count]):
        image = Image.new("RGB", (side, side), "white")
        pen = ImageDraw.Draw(image)
        box = (side // 8, side // 8, side * 7 // 8, side * 7 // 8)
        (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=colour)
        info = PngInfo()
        info.add_text("model", f"secret {shape} system")
        image.save(folder / f"{index}.png", pnginfo=info)
        (folder / f"{index}.txt").write_text(f"something {colour}", encoding="utf-8")
    return folder


def make_study(place: Path, *options: str, count: int = 6, side: int = 64) -> Path:
    """A study of circles against squares."""
    circles = image_folder(place / "circles", "circle", count, side)
    squares = image_folder(place / "squares", "square", count, side)
    out = place / "study"
    words = ["study", "create", str(out), f"round={circles}", f"angular={squares}", *options]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    return out
