"""Labelled image grids, and how images are saved."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wuerstchen.atomic_write import write_file

GAP = 8
"""Pixels between cells and around the grid."""

FONT_SIZE = 12
MAX_LINES = 3
"""Longer labels end in an ellipsis."""

BACKGROUND, TEXT = "white", "black"


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) pixels in [0, 1] to an RGB image."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def png_bytes(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def save_image(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically. Raises SaveError where it cannot be written."""
    write_file(path, png_bytes(image))


def labelled_grid(
    images: Sequence[Image.Image], labels: Sequence[str], columns: int
) -> Image.Image:
    """Images of one size in rows, each with its label centred below it."""
    font = ImageFont.load_default(FONT_SIZE)
    width, height = images[0].size
    columns = min(columns, len(images))
    texts = [_wrap(label, font, width) for label in labels]
    lines = max(text.count("\n") + 1 for text in texts)
    label_height = lines * (FONT_SIZE + 4) + 4 if any(labels) else 0
    rows = -(-len(images) // columns)
    step_x, step_y = width + GAP, height + label_height + GAP
    sheet = Image.new("RGB", (GAP + columns * step_x, GAP + rows * step_y), BACKGROUND)
    canvas = ImageDraw.Draw(sheet)
    for k, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = GAP + k % columns * step_x, GAP + k // columns * step_y
        sheet.paste(image, (x, y))
        canvas.multiline_text(
            (x + width / 2, y + height + 4), text, TEXT, font, anchor="ma", align="center"
        )
    return sheet


def _wrap(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Break the label into lines of at most `width` pixels."""
    letter = font.getlength("abcdefghijklmnopqrstuvwxyz ") / 27
    letters = max(4, int(width / letter))
    while True:
        lines = textwrap.wrap(label, letters, max_lines=MAX_LINES, placeholder=" …")
        if letters <= 4 or all(font.getlength(line) <= width for line in lines):
            return "\n".join(lines)
        letters -= 1
