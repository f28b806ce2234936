"""Stage A: a VQGAN that makes an image four times smaller per side (paper, section 3.1).

Shapes: B images, C channels, H x W pixels, K codes. Where the paper's text differs, this follows
the released weights: 12 decoder blocks, half the width at half the image's side.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.config import StageAModel
from wuerstchen.models import fused
from wuerstchen.models.blocks import initialise


class MixingBlock(nn.Module):
    """Spatial, then channel mixing, each scaled by three numbers that start at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        conv = nn.Conv2d(width, width, kernel_size=3, groups=width)
        self.depthwise = nn.Sequential(nn.ReplicationPad2d(1), conv)
        first, last = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.channelwise = nn.Sequential(first, nn.GELU(), last)
        self.gammas = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; the receptive field is one cell to each side."""
        if fused.can_fuse(self.depthwise[1], self.channelwise[0], self.channelwise[2]):
            return self._in_strips(x)
        scale, shift, gain, scale_mlp, shift_mlp, gain_mlp = self.gammas
        y = self._norm(x.permute(0, 2, 3, 1)) * (1 + scale) + shift  # (B, H, W, C)
        x = x + self.depthwise(y.permute(0, 3, 1, 2)) * gain  # (B, C, H, W)
        y = self._norm(x.permute(0, 2, 3, 1)) * (1 + scale_mlp) + shift_mlp  # (B, H, W, C)
        out: Tensor = x + self.channelwise(y).permute(0, 3, 1, 2) * gain_mlp  # (B, C, H, W)
        return out

    def _in_strips(self, x: Tensor) -> Tensor:
        """`forward` without gradients, a few rows at a time: no intermediate map is ever whole."""
        x = x.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        conv, first, last = self.depthwise[1], self.channelwise[0], self.channelwise[2]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        scale, shift, gain, scale_mlp, shift_mlp, gain_mlp = self.gammas
        # The six gammas are merged into weights and biases, which are smaller than the maps.
        weight, bias = conv.weight * gain, conv.bias * gain
        last_weight, last_bias = last.weight * gain_mlp, last.bias * gain_mlp
        height, width = x.shape[2:]
        for top, end in fused.strips(height, len(x) * 4 * self.width * width, x.device):
            above, below = min(top, 1), min(height - end, 1)  # rows of context for the convolution
            y = x[:, :, top - above : end + below].permute(0, 2, 3, 1)  # (B, H, W, C)
            y = self._scaled_norm(y, scale, shift).permute(0, 3, 1, 2)
            y = F.pad(y, (1, 1, 1 - above, 1 - below), mode="replicate")
            y = F.conv2d(y, weight, bias, groups=self.width).add_(x[:, :, top:end])
            rows = y.permute(0, 2, 3, 1)  # (B, H, W, C)
            hidden = self._scaled_norm(rows, scale_mlp, shift_mlp)
            hidden = fused.linear(hidden, first.weight, first.bias, gelu=True)
            mixed = fused.linear(hidden, last_weight, last_bias, add=rows)
            out[:, :, top:end] = mixed.permute(0, 3, 1, 2)
        return out

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), eps=1e-6)

    def _scaled_norm(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        weight, bias = (1 + scale).expand(self.width), shift.expand(self.width)
        return F.layer_norm(x, (self.width,), weight, bias, eps=1e-6)


class Quantised(NamedTuple):
    latent: Tensor
    """(B, C, H, W) nearest codes; gradients pass straight through."""
    codes: Tensor
    """(B, H, W) index of each code."""
    codebook_loss: Tensor
    """Pulls the codes to the latents."""
    commitment_loss: Tensor
    """Pulls the latents to the codes."""


class Codebook(nn.Module):
    """Nearest-neighbour vector quantisation (arXiv:1711.00937, equation 3)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)

    def forward(self, latent: Tensor) -> Quantised:
        points = latent.permute(0, 2, 3, 1).float()  # (B, H, W, C)
        codes = self.nearest(points.flatten(0, 2)).unflatten(0, points.shape[:3])  # (B, H, W)
        chosen = self.embedding(codes).float()  # (B, H, W, C)
        straight = points + (chosen - points).detach()
        return Quantised(
            straight.permute(0, 3, 1, 2).to(latent.dtype),
            codes,
            F.mse_loss(chosen, points.detach()),
            F.mse_loss(points, chosen.detach()),
        )

    @torch.no_grad()
    def nearest(self, points: Tensor) -> Tensor:
        """(N, C) points to the (N,) indices of their nearest codes."""
        book = self.embedding.weight.float()
        # |p - c|^2 = |p|^2 - 2 p.c + |c|^2, and |p|^2 does not change which code is nearest
        return torch.addmm(book.square().sum(dim=1), points, book.T, alpha=-2).argmin(dim=1)


class StageA(nn.Module):
    """Images in [0, 1] to latents of 4 channels at a quarter of the side, and back."""

    def __init__(self, config: StageAModel) -> None:
        super().__init__()
        outer, inner, latent = config.width // 2, config.width, config.latent_channels
        self.config = config
        self.in_block = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, outer, kernel_size=1))
        self.down_blocks = nn.Sequential(
            MixingBlock(outer),
            nn.Conv2d(outer, inner, kernel_size=4, stride=2, padding=1),
            MixingBlock(inner),
            nn.Sequential(nn.Conv2d(inner, latent, 1, bias=False), nn.BatchNorm2d(latent)),
        )
        self.codebook = Codebook(config.codebook, latent)
        self.up_blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(latent, inner, kernel_size=1)),
            *(MixingBlock(inner) for _ in range(config.depth)),
            nn.ConvTranspose2d(inner, outer, kernel_size=4, stride=2, padding=1),
            MixingBlock(outer),
        )
        self.out_block = nn.Sequential(nn.Conv2d(outer, 12, kernel_size=1), nn.PixelShuffle(2))
        initialise(self)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) pixels to the (B, 4, H/4, W/4) latent that Stage B diffuses."""
        return self.raw_latent(image) / self.config.scale

    def decode(self, latent: Tensor) -> Tensor:
        """(B, 4, H/4, W/4) latent to (B, 3, H, W) pixels in [0, 1]."""
        return self.raw_image(latent * self.config.scale).clamp(0, 1)

    def decode_in_strips(self, latent: Tensor, rows: int) -> Tensor:
        """`decode`, `rows` rows of the latent at a time: less memory, and no seam.

        Each strip is decoded with the rows in the receptive field of its cells.
        """
        height = latent.shape[2]
        around = self.config.depth + 2  # a row for each block, the doubling and the last block
        strips = []
        for top in range(0, height, rows):
            end, first = min(top + rows, height), max(top - around, 0)
            strip = self.decode(latent[:, :, first : end + around])  # (B, 3, at least 4 rows, W)
            strips.append(strip[:, :, 4 * (top - first) : 4 * (end - first)])
        return torch.cat(strips, dim=2)

    def raw_latent(self, image: Tensor) -> Tensor:
        """The latent before scaling: the space of the codebook and of the training."""
        image = image.to(self._dtype).contiguous(memory_format=torch.channels_last)
        latent: Tensor = self.down_blocks(self.in_block(image))
        return latent

    def raw_image(self, latent: Tensor) -> Tensor:
        """Decoded unscaled latents, not yet clamped to [0, 1]."""
        latent = latent.to(self._dtype).contiguous(memory_format=torch.channels_last)
        image: Tensor = self.out_block(self.up_blocks(latent))
        return image

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype
