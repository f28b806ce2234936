"""A small decoder from semantics straight to latents: no noise, no time, one pass.

The paper (appendix D) shows with such a decoder that the semantics hold the whole picture already.
We use it to teach a new compressor (training/rehearsal.py). S semantic channels, C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.models.blocks import ConvBlock, MapNorm, initialise

PATCH = 4
"""Latent cells per cell of the decoder and side."""


class Sketch(nn.Module):
    """(B, S, h, w) semantics of unit scale to (B, 4, H, W) latents, H and W multiples of 4."""

    def __init__(self, semantic_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(semantic_channels, width, kernel_size=1)
        self.blocks = nn.ModuleList(ConvBlock(width, 0, dropout=0.0) for _ in range(depth))
        self.head = nn.Sequential(
            MapNorm(width), nn.Conv2d(width, 4 * PATCH**2, kernel_size=1), nn.PixelShuffle(PATCH)
        )
        initialise(self)

    def forward(self, semantics: Tensor, size: tuple[int, int]) -> Tensor:
        y = self.embedding(semantics)  # (B, C, h, w)
        cells = (size[0] // PATCH, size[1] // PATCH)
        y = F.interpolate(y.float(), size=cells, mode="bicubic", align_corners=True).to(y)
        y = y.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            y = block(y)
        latent: Tensor = self.head(y)
        return latent
