"""Stage C, the prior: from text to semantics (paper, section 3.3; sizes of the released weights).

Without positional embedding: 3x3 convolutions encode positions. B images, S semantic channels,
L tokens, D text width.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wuerstchen.config import StageCModel
from wuerstchen.diffusion import noise_of
from wuerstchen.models.blocks import (
    AttentionBlock,
    ConvBlock,
    MapNorm,
    TextKeys,
    TimeBlock,
    initialise,
    time_embedding,
)

StageCCondition = tuple[TextKeys, ...]
"""Keys and values of the text, one pair for each attention block."""

PUBLISHED_INPUTS = (1280, 1536)
"""Inputs of the text mapper's two linear layers in the released weights."""


class StageC(nn.Module):
    """Predicts the noise in (B, S, H, W) scaled semantics."""

    def __init__(self, config: StageCModel) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self._divisor_held = False
        width, dropout = config.width, config.dropout
        self.text_mapper = nn.Sequential(
            nn.Linear(config.text_width, width), nn.LeakyReLU(0.2), nn.Linear(width, width)
        )
        self.projection = nn.Conv2d(config.semantic_channels, width, kernel_size=1)
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(ConvBlock(width, 0, dropout))
            self.blocks.append(TimeBlock(width, config.time_width))
            self.blocks.append(AttentionBlock(width, width, config.heads, dropout))
        self.head = nn.Sequential(
            MapNorm(width), nn.Conv2d(width, 2 * config.semantic_channels, kernel_size=1)
        )
        self._initialise()

    def condition(self, text: Tensor) -> StageCCondition:
        """(B, L, D) encoded captions to the condition of every step."""
        mapped = self.text_mapper(text)  # (B, L, C)
        blocks = (block for block in self.blocks if isinstance(block, AttentionBlock))
        return tuple(block.condition(mapped) for block in blocks)

    def forward(self, x: Tensor, t: Tensor, condition: StageCCondition) -> Tensor:
        """(B, S, H, W) noisy semantics at (B,) times to the noise, in their dtype.

        By the published head, unless the config names another prediction.
        """
        dtype = self.projection.weight.dtype
        time = time_embedding(t, self.config.time_width).to(dtype)
        y = x.to(dtype).contiguous(memory_format=torch.channels_last)
        y = self.projection(y)  # (B, C, H, W)
        groups = zip(*[iter(self.blocks)] * 3, strict=True)
        for (conv, at_time, attend), text in zip(groups, condition, strict=True):
            if self.gradient_checkpointing and self.training:
                y = checkpoint(conv, y, use_reentrant=False)
                y = checkpoint(attend, at_time(y, time), text, use_reentrant=False)
            else:
                y = attend(at_time(conv(y), time), text)
        a, b = self.head(y).to(x.dtype).chunk(2, dim=1)  # (B, S, H, W) each
        if self.config.predicts != "noise":
            return noise_of(self.config.predicts, a, x, t)
        if self._divisor_held:
            b = b.detach()  # zeros, and without a gradient they stay zeros
        noise: Tensor = (x - a) / ((1 - b).abs() + 1e-5)
        return noise

    def hold_divisor(self) -> None:
        """Fix the B half of the output layer at zero: the head is then x - A.

        Nothing in (x - A) / (|1 - B| + 1e-5) keeps B from 1, where the loss is unbounded.
        """
        output = self.head[1]
        assert isinstance(output, nn.Conv2d) and output.bias is not None
        with torch.no_grad():
            output.weight[self.config.semantic_channels :] = 0
            output.bias[self.config.semantic_channels :] = 0
        self._divisor_held = True

    def _initialise(self) -> None:
        """The published initialisation: x is predicted to be noise, and blocks near identity."""
        initialise(self)
        nn.init.normal_(self.projection.weight, std=0.02)
        for index, published in zip((0, 2), PUBLISHED_INPUTS, strict=True):
            layer = self.text_mapper[index]
            assert isinstance(layer, nn.Linear)
            # The published deviation at the published size; at others the same output variance.
            nn.init.normal_(layer.weight, std=0.02 * (published / layer.in_features) ** 0.5)
        nn.init.zeros_(self.head[1].weight)  # type: ignore[arg-type]
        for block in self.blocks:
            if isinstance(block, ConvBlock):
                with torch.no_grad():
                    block.channelwise[-1].weight.mul_((1 / self.config.depth) ** 0.5)  # type: ignore[operator]
            if isinstance(block, TimeBlock):
                nn.init.zeros_(block.mapper.weight)
