"""Features of a sticker's crop from EfficientNet-lite0, at several depths. B crops, F features."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.evaluation.distances.lite0 import open_lite0

SIDE = 128
"""Side of a crop in pixels."""

BLOCKS = (0, 2, 4, 7, 10)
"""Blocks whose features are used: early ones see outlines and shading, late ones objects."""

COLOUR_CELLS = 6
"""Cells per side of the colours of a crop."""

FLAT_LEVELS = (0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5)
"""Differences between neighbouring pixels, of which each crop's distribution function is taken."""


LAST = 1280
"""Channels of the network's last layer."""


@final
class FeatureNetwork:
    """Features of crops: ImageNet features at several depths, colours, and the amount of detail."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """On a device; raises WuerstchenError if the packages of the extra `judge` are missing."""
        self._device = torch.device(device)
        self._network = open_lite0().to(self._device)

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) pixels in [0, 1] to (B, F), both on the CPU."""
        net, crops = self._network, crops.to(self._device)
        x = (crops - 127 / 255) / (128 / 255)
        x = net._swish(net._bn0(net._conv_stem(x)))  # type: ignore[operator]
        found = [_mean_and_std(x)]
        for index, block in enumerate(net._blocks):  # type: ignore[arg-type]
            x = block(x)
            if index in BLOCKS:
                found.append(_mean_and_std(x))
            if index == BLOCKS[-1]:
                found.append(F.adaptive_avg_pool2d(x, 2).flatten(1))  # (B, 4 C)
        x = net._swish(net._bn1(net._conv_head(x)))  # type: ignore[operator]
        colours = F.adaptive_avg_pool2d(crops, COLOUR_CELLS).flatten(1)
        return torch.cat([*found, x.mean(dim=(2, 3)), colours, _detail(crops)], dim=1).cpu()


def last_layer(features: Tensor) -> Tensor:
    """(B, F) to the (B, LAST) features of the last layer, on which distances are measured."""
    end = features.shape[1] - 3 * COLOUR_CELLS**2 - len(FLAT_LEVELS)
    return features[:, end - LAST : end]


def _mean_and_std(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2 C)."""
    return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)


def _detail(crops: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, levels): fraction of pixels whose neighbours differ by less than each."""
    corner = crops[:, :, :-1, :-1]
    right, down = crops[:, :, :-1, 1:] - corner, crops[:, :, 1:, :-1] - corner
    change = torch.cat([right, down], dim=1).abs().amax(dim=1).flatten(1)  # (B, pixels)
    return torch.stack([(change < level).float().mean(dim=1) for level in FLAT_LEVELS], dim=1)
