"""The Semantic Compressor: EfficientNetV2-S (arXiv:2104.00298) and a 1x1 map to the semantics.

It reads the image at 0.75 of its size and is 32 times smaller per side: 42.67 : 1 in all. The
backbone has torchvision's parameter names, for its ImageNet weights; it has no stochastic depth.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.config import CompressorModel
from wuerstchen.geometry import SEMANTICS_SCALE, SEMANTICS_SHIFT, compressor_size

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of the channels of ImageNet, on which the published backbone was trained."""


class BackboneStage(NamedTuple):
    """One row of table 4 of arXiv:2104.00298."""

    fused: bool
    expand: int
    stride: int
    width: int
    blocks: int


CELL, PATCH_SIDE = 32, 8
"""Pixels per side of a cell, and of the average that the patch embedding reads."""

STEM_WIDTH, LAST_WIDTH = 24, 1280
STAGES = (
    BackboneStage(fused=True, expand=1, stride=1, width=24, blocks=2),
    BackboneStage(fused=True, expand=4, stride=2, width=48, blocks=4),
    BackboneStage(fused=True, expand=4, stride=2, width=64, blocks=4),
    BackboneStage(fused=False, expand=4, stride=2, width=128, blocks=6),
    BackboneStage(fused=False, expand=6, stride=1, width=160, blocks=9),
    BackboneStage(fused=False, expand=6, stride=2, width=256, blocks=15),
)


class ConvNorm(nn.Sequential):
    """Convolution, BatchNorm and, unless it ends a residual branch, SiLU."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(after, eps=1e-3),
            *([nn.SiLU()] if activate else []),
        )


class SqueezeExcitation(nn.Module):
    """Scales channels by the mean of the whole map (arXiv:1709.01507)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        gain: Tensor = self.fc2(F.silu(self.fc1(mean))).sigmoid()
        return x * gain


class InvertedBottleneck(nn.Module):
    """MBConv or, when `fused`, Fused-MBConv: widen, convolve, narrow."""

    def __init__(self, before: int, after: int, expand: int, stride: int, *, fused: bool) -> None:
        super().__init__()
        inner = _multiple_of_8(before * expand)
        self.residual = stride == 1 and before == after
        layers: list[nn.Module]
        if fused and inner == before:
            layers = [ConvNorm(before, after, 3, stride=stride)]
        elif fused:
            layers = [
                ConvNorm(before, inner, 3, stride=stride),
                ConvNorm(inner, after, 1, activate=False),
            ]
        else:
            layers = [
                ConvNorm(before, inner, 1),
                ConvNorm(inner, inner, 3, stride=stride, groups=inner),
                SqueezeExcitation(inner, max(1, before // 4)),
                ConvNorm(inner, after, 1, activate=False),
            ]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class Compressor(nn.Module):
    """(B, 3, H, W) pixels to (B, S, H/32, W/32) semantics."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: CompressorModel) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.backbone = _backbone(config)
        last = _multiple_of_8(LAST_WIDTH * config.width)
        self.mapper = nn.Sequential(
            nn.Conv2d(last, config.channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(config.channels, affine=config.affine),
        )
        self.patch_embedding = _patch_embedding(config) if config.patch_embedding else None
        self._initialise()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in [0, 1], already at the compressor's size, to the semantics."""
        # Both are in no file: they may be on another device if weights are loaded for each use.
        mean, std = self.mean.to(image.device), self.std.to(image.device)
        return self.semantics((image - mean) / std)

    def semantics(self, normalised: Tensor) -> Tensor:
        """The same for pixels already normalised by ImageNet's mean and standard deviation."""
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        linear, norm = self.mapper
        semantics: Tensor = linear(self.backbone(normalised))
        if self.patch_embedding is not None:
            semantics = semantics + self.patch_embedding(normalised)
        normed: Tensor = norm(semantics)
        return normed

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.patch_embedding is not None:
            nn.init.orthogonal_(self.patch_embedding[-1].weight)  # type: ignore[arg-type]
        norm = self.mapper[1]
        if isinstance(norm, nn.BatchNorm2d) and norm.affine:
            # Fixed, so that (semantics + 1) / 42, what Stage C diffuses, has unit variance.
            nn.init.constant_(norm.weight, SEMANTICS_SCALE).requires_grad_(False)
            nn.init.constant_(norm.bias, -SEMANTICS_SHIFT).requires_grad_(False)


def _patch_embedding(config: CompressorModel) -> nn.Sequential:
    """(B, 3, H, W) pixels to (B, S, H/32, W/32): a linear map of the 8 x 8 averages of a cell."""
    linear = nn.Conv2d(3 * PATCH_SIDE**2, config.channels, kernel_size=1, bias=False)
    return nn.Sequential(nn.AvgPool2d(CELL // PATCH_SIDE), nn.PixelUnshuffle(PATCH_SIDE), linear)


def shrink(image: Tensor) -> Tensor:
    """(B, 3, H, W) images at the size of the compressor's input, about 0.75."""
    size = compressor_size(*image.shape[-2:])
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _backbone(config: CompressorModel) -> nn.Sequential:
    before = _multiple_of_8(STEM_WIDTH * config.width)
    layers: list[nn.Module] = [ConvNorm(3, before, 3, stride=2)]
    for stage in STAGES:
        after = _multiple_of_8(stage.width * config.width)
        blocks: list[nn.Module] = []
        for index in range(max(1, round(stage.blocks * config.depth))):
            stride = stage.stride if index == 0 else 1
            block = InvertedBottleneck(before, after, stage.expand, stride, fused=stage.fused)
            blocks.append(block)
            before = after
        layers.append(nn.Sequential(*blocks))
    layers.append(ConvNorm(before, _multiple_of_8(LAST_WIDTH * config.width), 1))
    return nn.Sequential(*layers)


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than 10 % below `width`."""
    near = max(8, int(width + 4) // 8 * 8)
    return near if near >= 0.9 * width else near + 8
