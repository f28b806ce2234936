"""Perceptual losses of Stage A: VGG16 features, or a pyramid of edges without weights."""

from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.models.compressor import MEAN, STD

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) images in [0, 1], reconstructed and original, to one loss."""

VGG16_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of VGG16's convolutions (arXiv:1409.1556, configuration D); 0: halves the side."""

COMPARED = (3, 8, 15, 22, 29)
"""Layers whose outputs are compared, as in LPIPS: the last ReLU before each halving."""

PYRAMID_LEVELS = 3


def pyramid_loss(image: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference of the images' edges, at full, half and quarter size."""
    total = image.new_zeros(())
    for _ in range(PYRAMID_LEVELS):
        for dim in (-2, -1):
            total = total + F.l1_loss(image.diff(dim=dim), original.diff(dim=dim))
        image, original = F.avg_pool2d(image, 2), F.avg_pool2d(original, 2)
    return total / PYRAMID_LEVELS


@final
class Vgg16Loss(nn.Module):
    """Squared distance of unit-length VGG16 features (arXiv:1801.03924, without learned weights).

    features  as `vgg16_features` makes them, with their weights
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.features = features
        self.requires_grad_(False)

    def forward(self, image: Tensor, original: Tensor) -> Tensor:
        self.to(image.device)
        pair = (torch.cat([image, original]) - self.mean) / self.std  # (2B, 3, H, W)
        total = pair.new_zeros(())
        for index, layer in enumerate(self.features):
            pair = layer(pair)
            if index in COMPARED:
                ours, theirs = F.normalize(pair, dim=1).chunk(2)
                total = total + (ours - theirs).square().sum(dim=1).mean()
        return total


def vgg16_features() -> nn.Sequential:
    """The convolutions of VGG16 with torchvision's names, randomly initialised."""
    layers: list[nn.Module] = []
    before = 3
    for width in VGG16_WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
    return nn.Sequential(*layers)
