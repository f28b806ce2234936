"""Inception-v3 as trained in 2015, the network of FID (arXiv:1512.00567, arXiv:1706.08500).

Key names are those of pytorch-fid's file, so that pt_inception-2015-12-05 loads. Against the
published architecture, averages leave out the padding, and the last block pools by the maximum.

B images, C channels.
"""

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
"""Side of the images in pixels."""

FEATURES, CLASSES = 2048, 1008

Pool = Literal["average", "maximum", "shrink"]
"""How the last branch pools; `shrink` halves the side, as the other branches of its block do."""

Path = Sequence[str | tuple[str, str]]
"""Convolutions in turn; a pair takes the same input, and its outputs are concatenated."""


@final
class ConvUnit(nn.Module):
    """Convolution, batch normalisation, ReLU; keeps the side at stride 1 and pads nothing else."""

    def __init__(
        self, before: int, after: int, kernel: tuple[int, int], stride: int = 1, pad: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


@final
class Mixed(nn.Module):
    """Branches on the same input, their outputs concatenated, a pooled one last."""

    def __init__(self, units: dict[str, ConvUnit], paths: Sequence[Path], pool: Pool) -> None:
        super().__init__()
        for name, unit in units.items():
            self.add_module(name, unit)
        self._paths, self._pool = paths, pool

    def forward(self, x: Tensor) -> Tensor:
        found = [self._follow(path, x) for path in self._paths]
        if self._pool == "shrink":
            pooled = F.max_pool2d(x, 3, stride=2)
        elif self._pool == "maximum":
            pooled = self._follow(["branch_pool"], F.max_pool2d(x, 3, stride=1, padding=1))
        else:
            mean = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            pooled = self._follow(["branch_pool"], mean)
        return torch.cat([*found, pooled], dim=1)

    def _follow(self, path: Path, x: Tensor) -> Tensor:
        for step in path:
            if isinstance(step, str):
                x = self.get_submodule(step)(x)
            else:
                x = torch.cat([self.get_submodule(name)(x) for name in step], dim=1)
        return x


@final
class Inception2015(nn.Module):
    """(B, 3, 299, 299) pixels in [0, 1] to features and class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, (3, 3), pad=False)
        self.Mixed_5b = _of_35(192, pooled=32)
        self.Mixed_5c = _of_35(256, pooled=64)
        self.Mixed_5d = _of_35(288, pooled=64)
        self.Mixed_6a = _from_35_to_17(288)
        self.Mixed_6b = _of_17(128)
        self.Mixed_6c = _of_17(160)
        self.Mixed_6d = _of_17(160)
        self.Mixed_6e = _of_17(192)
        self.Mixed_7a = _from_17_to_8(768)
        self.Mixed_7b = _of_8(1280, "average")
        self.Mixed_7c = _of_8(FEATURES, "maximum")
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 2048) features, averaged over the last layer's 8 x 8 cells."""
        x = 2 * images - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        features: Tensor = x.mean(dim=(2, 3))
        return features

    def scores(self, features: Tensor) -> Tensor:
        """(B, 2048) to (B, 1008) class scores without bias, of which Inception Score is defined."""
        scores: Tensor = features @ self.fc.weight.T
        return scores


def _of_35(before: int, pooled: int) -> Mixed:
    """Cells of 35 x 35."""
    units = {
        "branch1x1": ConvUnit(before, 64, (1, 1)),
        "branch5x5_1": ConvUnit(before, 48, (1, 1)),
        "branch5x5_2": ConvUnit(48, 64, (5, 5)),
        "branch3x3dbl_1": ConvUnit(before, 64, (1, 1)),
        "branch3x3dbl_2": ConvUnit(64, 96, (3, 3)),
        "branch3x3dbl_3": ConvUnit(96, 96, (3, 3)),
        "branch_pool": ConvUnit(before, pooled, (1, 1)),
    }
    double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
    return Mixed(units, [["branch1x1"], ["branch5x5_1", "branch5x5_2"], double], "average")


def _from_35_to_17(before: int) -> Mixed:
    units = {
        "branch3x3": ConvUnit(before, 384, (3, 3), stride=2),
        "branch3x3dbl_1": ConvUnit(before, 64, (1, 1)),
        "branch3x3dbl_2": ConvUnit(64, 96, (3, 3)),
        "branch3x3dbl_3": ConvUnit(96, 96, (3, 3), stride=2),
    }
    double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
    return Mixed(units, [["branch3x3"], double], "shrink")


def _of_17(middle: int) -> Mixed:
    """Cells of 17 x 17, with factorised 7 x 7 convolutions of `middle` channels."""
    flat, tall = (1, 7), (7, 1)
    units = {
        "branch1x1": ConvUnit(768, 192, (1, 1)),
        "branch7x7_1": ConvUnit(768, middle, (1, 1)),
        "branch7x7_2": ConvUnit(middle, middle, flat),
        "branch7x7_3": ConvUnit(middle, 192, tall),
        "branch7x7dbl_1": ConvUnit(768, middle, (1, 1)),
        "branch7x7dbl_2": ConvUnit(middle, middle, tall),
        "branch7x7dbl_3": ConvUnit(middle, middle, flat),
        "branch7x7dbl_4": ConvUnit(middle, middle, tall),
        "branch7x7dbl_5": ConvUnit(middle, 192, flat),
        "branch_pool": ConvUnit(768, 192, (1, 1)),
    }
    single = [f"branch7x7_{k}" for k in (1, 2, 3)]
    double = [f"branch7x7dbl_{k}" for k in (1, 2, 3, 4, 5)]
    return Mixed(units, [["branch1x1"], single, double], "average")


def _from_17_to_8(before: int) -> Mixed:
    units = {
        "branch3x3_1": ConvUnit(before, 192, (1, 1)),
        "branch3x3_2": ConvUnit(192, 320, (3, 3), stride=2),
        "branch7x7x3_1": ConvUnit(before, 192, (1, 1)),
        "branch7x7x3_2": ConvUnit(192, 192, (1, 7)),
        "branch7x7x3_3": ConvUnit(192, 192, (7, 1)),
        "branch7x7x3_4": ConvUnit(192, 192, (3, 3), stride=2),
    }
    long = [f"branch7x7x3_{k}" for k in (1, 2, 3, 4)]
    return Mixed(units, [["branch3x3_1", "branch3x3_2"], long], "shrink")


def _of_8(before: int, pool: Pool) -> Mixed:
    """Cells of 8 x 8, whose branches end in a flat and a tall convolution side by side."""
    units = {
        "branch1x1": ConvUnit(before, 320, (1, 1)),
        "branch3x3_1": ConvUnit(before, 384, (1, 1)),
        "branch3x3_2a": ConvUnit(384, 384, (1, 3)),
        "branch3x3_2b": ConvUnit(384, 384, (3, 1)),
        "branch3x3dbl_1": ConvUnit(before, 448, (1, 1)),
        "branch3x3dbl_2": ConvUnit(448, 384, (3, 3)),
        "branch3x3dbl_3a": ConvUnit(384, 384, (1, 3)),
        "branch3x3dbl_3b": ConvUnit(384, 384, (3, 1)),
        "branch_pool": ConvUnit(before, 192, (1, 1)),
    }
    single: Path = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    double: Path = ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")]
    return Mixed(units, [["branch1x1"], single, double], pool)
