"""What makes two images look alike, for Stage A: VGG16 features, or a pyramid without weights."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import StageATraining
from wuerstchen.models.compressor import MEAN, STD

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) images in [0, 1], made and true, to one loss."""

VGG16_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of VGG16's convolutions (arXiv:1409.1556, configuration D); 0: halve the side."""

COMPARED = (3, 8, 15, 22, 29)
"""Layers whose outputs are compared, as in LPIPS: the last ReLU before each halving."""

PYRAMID_LEVELS = 3


def perceptual_loss(config: StageATraining) -> Perceptual:
    """The perceptual loss that the config asks for."""
    if config.perceptual_loss == "pyramid":
        return pyramid_loss
    return Vgg16Loss(Path(config.vgg16_weights))


def pyramid_loss(made: Tensor, true: Tensor) -> Tensor:
    """Mean absolute difference of the images' edges, at full, half and quarter size."""
    total = made.new_zeros(())
    for _ in range(PYRAMID_LEVELS):
        for dim in (-2, -1):
            total = total + F.l1_loss(made.diff(dim=dim), true.diff(dim=dim))
        made, true = F.avg_pool2d(made, 2), F.avg_pool2d(true, 2)
    return total / PYRAMID_LEVELS


class Vgg16Loss(nn.Module):
    """Squared distance of unit-length VGG16 features (arXiv:1801.03924, without learned weights).

    path  safetensors with torchvision's key names: `features.0.weight` …

    Raises ConfigError for a file that is not of VGG16.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor(STD).view(1, 3, 1, 1))
        self.features = vgg16_features()
        weights.load_features(self.features, path, "VGG16", "stage_a.training.vgg16_weights")
        self.requires_grad_(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        self.to(made.device)
        pair = (torch.cat([made, true]) - self.mean) / self.spread  # (2B, 3, H, W)
        return compared(self.features, pair)


def compared(features: nn.Sequential, pair: Tensor) -> Tensor:
    """The loss of (2B, 3, H, W) normalised images: those made, then the true ones."""
    total = pair.new_zeros(())
    for index, layer in enumerate(features):
        pair = layer(pair)
        if index in COMPARED:
            ours, theirs = F.normalize(pair, dim=1).chunk(2)
            total = total + (ours - theirs).square().sum(dim=1).mean()
    return total


def vgg16_features() -> nn.Sequential:
    """The convolutions of VGG16, with torchvision's names and without weights."""
    layers: list[nn.Module] = []
    before = 3
    for width in VGG16_WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*layers)
