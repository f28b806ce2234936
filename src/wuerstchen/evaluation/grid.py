"""Images side by side with words below them, as one image."""

import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 8
"""Pixels between cells and around the grid."""

FONT_SIZE = 12
MOST_LINES = 3
"""Longer labels end in an ellipsis."""

PAPER, INK = "white", "black"


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) pixels in [0, 1] to an RGB image."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def labelled_grid(
    images: Sequence[Image.Image], labels: Sequence[str], columns: int
) -> Image.Image:
    """Equally large images row by row, each with its label centred below it."""
    font = ImageFont.load_default(FONT_SIZE)
    width, height = images[0].size
    columns = min(columns, len(images))
    texts = [_wrap(label, font, width) for label in labels]
    lines = max(text.count("\n") + 1 for text in texts)
    below = lines * (FONT_SIZE + 4) + 4 if any(labels) else 0
    rows = -(-len(images) // columns)
    step_x, step_y = width + GAP, height + below + GAP
    sheet = Image.new("RGB", (GAP + columns * step_x, GAP + rows * step_y), PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = GAP + k % columns * step_x, GAP + k // columns * step_y
        sheet.paste(image, (x, y))
        draw.multiline_text(
            (x + width / 2, y + height + 4), text, INK, font, anchor="ma", align="center"
        )
    return sheet


def _wrap(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Break the label so that every line fits below an image `width` pixels wide."""
    letter = font.getlength("abcdefghijklmnopqrstuvwxyz ") / 27
    letters = max(4, int(width / letter))
    while True:
        lines = textwrap.wrap(label, letters, max_lines=MOST_LINES, placeholder=" …")
        if letters <= 4 or all(font.getlength(line) <= width for line in lines):
            return "\n".join(lines)
        letters -= 1
