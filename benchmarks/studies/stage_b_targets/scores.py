"""Scores of generated images against real ones, and sample grids.

B images (B, 3, S, S) in [0, 1].
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wuerstchen.psnr import psnr

BLOCK = 16
"""Side in pixels of the blocks whose colours are compared."""


def image_scores(generated: Tensor, real: Tensor) -> dict[str, float]:
    """
    psnr    dB, mean over images
    colour  root mean square error of the blocks' two colour differences, in levels of 0 to 255
    chroma  mean chroma of the blocks, as a fraction of that of the real images
    edges   mean difference of neighbouring pixels, as a fraction of that of the real images
    """
    chroma, real_chroma = _colour_differences(generated), _colour_differences(real)
    return {
        "psnr": float(psnr(generated, real).mean()),
        "colour": float((chroma - real_chroma).square().mean().sqrt()) * 255,
        "chroma": float(chroma.norm(dim=1).mean() / real_chroma.norm(dim=1).mean()),
        "edges": float(_edges(generated) / _edges(real)),
    }


def _colour_differences(images: Tensor) -> Tensor:
    """(B, 2, S/16, S/16) red minus green, and blue minus their mean, of each block."""
    red, green, blue = F.avg_pool2d(images, BLOCK).unbind(1)
    return torch.stack([red - green, blue - (red + green) / 2], dim=1)


def _edges(images: Tensor) -> Tensor:
    grey = images.mean(dim=1)
    return grey.diff(dim=2).abs().mean() + grey.diff(dim=1).abs().mean()


def save_grid(path: Path, rows: list[Tensor]) -> None:
    """Write rows of (B, 3, S, S) images as one PNG."""
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    levels = grid.clamp(0, 1).mul(255).round().byte()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(path)
