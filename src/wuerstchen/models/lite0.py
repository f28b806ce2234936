"""EfficientNet-lite0: that of arXiv:1905.11946 without squeeze and excitation, with ReLU6.

B images, C channels.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

NORM_EPS = 1e-3

MEAN, STD = 127 / 255, 128 / 255
"""By which pixels in [0, 1] are normalised, in every channel."""

STEM_WIDTH, LAST_WIDTH = 32, 1280


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride."""

    kernel: int
    stride: int
    expand: int
    width: int
    blocks: int


STAGES = (
    Stage(kernel=3, stride=1, expand=1, width=16, blocks=1),
    Stage(kernel=3, stride=2, expand=6, width=24, blocks=2),
    Stage(kernel=5, stride=2, expand=6, width=40, blocks=2),
    Stage(kernel=3, stride=2, expand=6, width=80, blocks=3),
    Stage(kernel=5, stride=1, expand=6, width=112, blocks=3),
    Stage(kernel=5, stride=2, expand=6, width=192, blocks=4),
    Stage(kernel=3, stride=1, expand=6, width=320, blocks=1),
)


@final
class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel, narrow."""

    def __init__(self, before: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = before * stage.expand
        self.residual = stride == 1 and before == stage.width
        self.layers = nn.Sequential(
            *(_convolution(before, inner) if stage.expand > 1 else ()),
            *_convolution(inner, inner, stage.kernel, stride, groups=inner),
            *_convolution(inner, stage.width, activate=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


@final
class EfficientNetLite0(nn.Module):
    """Normalisation is folded into the convolutions: half the time, equal up to rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, STEM_WIDTH, 3, stride=2))
        self.blocks = nn.ModuleList()
        before = STEM_WIDTH
        for stage in STAGES:
            for index in range(stage.blocks):
                self.blocks.append(InvertedBottleneck(before, stage, stage.stride ** (index == 0)))
                before = stage.width
        self.last = nn.Sequential(*_convolution(before, LAST_WIDTH))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, H, W) pixels in [0, 1] to the maps of the stem, of every block and the last."""
        x = (images - MEAN) / STD
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        yield x
        for block in self.blocks:
            x = block(x)
            yield x
        yield self.last(x)

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights under the names of the package `efficientnet-lite-pytorch`."""
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        for layer, (name, norm) in zip(convolutions, self._names(), strict=True):
            scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPS).sqrt()
            layer.weight.copy_(weights[f"{name}.weight"] * scale.view(-1, 1, 1, 1))
            assert layer.bias is not None
            layer.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)

    def _names(self) -> Iterator[tuple[str, str]]:
        """Of each convolution and its normalisation, in the order of the modules."""
        yield "_conv_stem", "_bn0"
        for index in range(len(self.blocks)):
            if index:  # the first block does not widen
                yield f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0"
            yield f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1"
            yield f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2"
        yield "_conv_head", "_bn1"


def _convolution(
    before: int,
    after: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    activate: bool = True,
) -> list[nn.Module]:
    """With padding as TensorFlow has it: a strided one pads more at the end than at the start."""
    if stride == 1:
        padding: list[nn.Module] = []
    else:
        start = (kernel - stride) // 2
        end = kernel - stride - start
        padding = [nn.ZeroPad2d((start, end, start, end))]
    same = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(before, after, kernel, stride, same, groups=groups)
    return [*padding, convolution, *([nn.ReLU6(inplace=True)] if activate else [])]
