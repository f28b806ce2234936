"""Features of a sticker's crop: what the network sees, its shape and its colours.

B crops, F features. A crop's background is the colour of its corner; it is replaced by gray, so
that the features are those of the sticker alone.
"""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.evaluation.lite0 import load_lite0

SIDE = 128
"""Side of a crop in pixels."""

GRAY = 136 / 255

MAPS = (1, 3, 5, 8, 11)
"""The network's maps that are used: early ones see outlines and shading, late ones objects."""

COLOUR_CELLS = 6
"""Cells per side of the mean colours of a crop."""

FLAT_LEVELS = (0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5)
"""Differences between neighbouring pixels, of which each crop's distribution function is taken."""

LIGHT_CELLS, EDGE_CELLS, MASK_CELLS = 16, 8, 12
"""Cells per side of a crop's lightness, edges and silhouette."""

EDGE_SIDE, DIRECTIONS = 48, 4
"""Side at which edges are measured, and their directions."""

SHAPE = LIGHT_CELLS**2 + DIRECTIONS * EDGE_CELLS**2 + MASK_CELLS**2

LEVELS = 11
"""Of each colour channel in a palette: its histogram has LEVELS**3 bins."""

PALETTE = LEVELS**3

VISIBLE = 0.03
"""Pixels whose colour differs by more from gray, in one channel, are the sticker's."""


class Parts(NamedTuple):
    """(..., F) features, by what they are of."""

    network: Tensor
    shape: Tensor  # (..., SHAPE)
    palette: Tensor  # (..., PALETTE)


def split(features: Tensor) -> Parts:
    """The parts of (..., F) features."""
    width = features.shape[-1] - SHAPE - PALETTE
    network, shape, palette = features.split([width, SHAPE, PALETTE], dim=-1)
    return Parts(network, shape, palette)


@final
class FeatureNetwork:
    """Features of crops: ImageNet features at several depths, shape, colours, amount of detail."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """On a device; raises WuerstchenError if the packages of the extra `judge` are missing."""
        self._device = torch.device(device)
        self._network = load_lite0().to(self._device)

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) pixels in [0, 1] to (B, F), both on the CPU."""
        crops = on_gray(crops.to(self._device))
        maps = list(self._network(crops))
        found = [_mean_and_std(maps[0]), *(_mean_and_std(maps[index]) for index in MAPS)]
        quarters = F.adaptive_avg_pool2d(maps[MAPS[-1]], 2).flatten(1)  # (B, 4 C)
        colours = F.adaptive_avg_pool2d(crops, COLOUR_CELLS).flatten(1)
        found += [quarters, maps[-1].mean(dim=(2, 3)), colours, _detail(crops)]
        return torch.cat([*found, shape_of(crops), palette_of(crops)], dim=1).cpu()

    @torch.inference_mode()
    def last_layer(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) whole images to (B, C) means of the last layer, for distances."""
        *_, last = self._network(images.to(self._device))
        means: Tensor = last.mean(dim=(2, 3))
        return means.cpu()


def on_gray(crops: Tensor) -> Tensor:
    """Crops with gray in place of the exact colour of their corner."""
    background = (crops == crops[:, :, :1, :1]).all(dim=1, keepdim=True)
    return crops.masked_fill(background, GRAY)


def shape_of(crops: Tensor) -> Tensor:
    """(B, 3, H, W) on gray to (B, SHAPE): lightness, edges by direction, and silhouette."""
    light = crops.mean(dim=1, keepdim=True)
    small = F.adaptive_avg_pool2d(light, EDGE_SIDE)
    right = small[:, :, 1:-1, 2:] - small[:, :, 1:-1, :-2]
    down = small[:, :, 2:, 1:-1] - small[:, :, :-2, 1:-1]
    size = (right.square() + down.square()).sqrt()
    angle = torch.atan2(down, right) % torch.pi
    edges = [
        F.adaptive_avg_pool2d(
            size * torch.cos(angle - k * torch.pi / DIRECTIONS).clamp_min(0).square(), EDGE_CELLS
        )
        for k in range(DIRECTIONS)
    ]
    mask = _visible(crops)
    return torch.cat(
        [
            F.adaptive_avg_pool2d(light, LIGHT_CELLS).flatten(1),
            torch.cat(edges, dim=1).flatten(1).sqrt(),
            F.adaptive_avg_pool2d(mask, MASK_CELLS).flatten(1),
        ],
        dim=1,
    )


def palette_of(crops: Tensor) -> Tensor:
    """(B, 3, H, W) on gray to (B, PALETTE): square roots of the colour histogram's fractions.

    Each pixel is divided between the eight bins around its colour, so small changes stay small.
    """
    pixels = F.avg_pool2d(crops, 2)
    weights = _visible(pixels).flatten(1)  # (B, P)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1)
    place = pixels.flatten(2) * (LEVELS - 1)  # (B, 3, P)
    below = place.floor().clamp(0, LEVELS - 2)
    above = place - below  # the weight of the higher level
    histogram = weights.new_zeros(len(crops), PALETTE)
    for corner in range(8):
        steps = torch.tensor([corner >> channel & 1 for channel in range(3)]).to(below)
        level = below + steps[:, None]
        fraction = torch.where(steps[:, None] > 0, above, 1 - above).prod(dim=1)
        red, green, blue = level.long().unbind(dim=1)
        histogram.scatter_add_(1, (red * LEVELS + green) * LEVELS + blue, fraction * weights)
    return histogram.sqrt()


def _visible(images: Tensor) -> Tensor:
    """(B, 3, H, W) on gray to (B, 1, H, W): 1 where the sticker is."""
    return ((images - GRAY).abs().amax(dim=1, keepdim=True) > VISIBLE).float()


def _mean_and_std(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2 C)."""
    return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)


def _detail(crops: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, levels): fraction of pixels whose neighbours differ by less than each."""
    corner = crops[:, :, :-1, :-1]
    right, down = crops[:, :, :-1, 1:] - corner, crops[:, :, 1:, :-1] - corner
    change = torch.cat([right, down], dim=1).abs().amax(dim=1).flatten(1)  # (B, pixels)
    return torch.stack([(change < level).float().mean(dim=1) for level in FLAT_LEVELS], dim=1)
