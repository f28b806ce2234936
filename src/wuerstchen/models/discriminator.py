"""The discriminator of Stage A's adversarial loss: real or reconstructed, patch by patch."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Strided spectral-norm convolutions (arXiv:1802.05957) with one logit per patch.

    Widths double up to eight times the first; 64 and depth 6 are published. Ours has no sigmoid at
    its end: the loss of a logit is better conditioned.
    """

    def __init__(self, width: int = 64, depth: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for level in range(depth):
            after = width * min(2**level, 8)
            layers.append(spectral_norm(nn.Conv2d(before, after, 3, stride=2, padding=1)))
            if level > 0:
                layers.append(nn.InstanceNorm2d(after))
            layers.append(nn.LeakyReLU(0.2))
            before = after
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(before, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in [0, 1] to (B, 1, H', W') logits; positive means real."""
        image = image.contiguous(memory_format=torch.channels_last)
        logit: Tensor = self.head(self.features(image))
        return logit
