"""Stage B, DiffNeXt: from semantics (and text) to latents (paper, section 3.2).

A U-Net of ConvNeXt blocks with attention on its lower levels. B images, C channels, H x W
latent cells, S semantic channels, L tokens, D text width, levels from fine (0) to coarse.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wuerstchen.config import StageBModel
from wuerstchen.diffusion import noise_of
from wuerstchen.models.blocks import (
    AttentionBlock,
    ConvBlock,
    Folded,
    MapNorm,
    TextKeys,
    TimeBlock,
    initialise,
    time_embedding,
)

LATENT_CHANNELS = 4
DIVISOR_MARGIN = 1e-3
"""The divisor of the head is in [0.001, 0.999]."""

WITH_ATTENTION = 3
"""Blocks in a group that has attention after convolution and time."""


class LevelCondition(NamedTuple):
    """Constant over the steps of one generation, for one level of the U-Net."""

    semantics: Tensor | None
    """(B, S, H, W) at the level's size, or (B, condition width, H, W) if nothing is folded."""
    folded: tuple[Folded | None, ...]
    """The first layer of each convolution block, reading the semantics unmapped."""
    text: tuple[TextKeys, ...]
    """Of each attention block."""


class StageBCondition(NamedTuple):
    """Constant over the steps of one generation, level by level."""

    down: tuple[LevelCondition, ...]
    up: tuple[LevelCondition, ...]


class StageB(nn.Module):
    """Predicts the noise in (B, 4, H, W) latents; H and W are multiples of `grid`."""

    def __init__(self, config: StageBModel) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.grid = config.patch * 2 ** (len(config.widths) - 1)
        levels = range(len(config.widths))
        self.text_mapper = nn.Linear(config.text_width, config.condition_width)
        self.subpixel = _subpixel_convolution(config) if config.subpixel_channels else None
        read = config.semantic_channels + config.subpixel_channels
        self.semantics_mappers = nn.ModuleList(
            nn.Conv2d(read, config.condition_width, kernel_size=1)
            if config.semantics[level]
            else nn.Identity()
            for level in (*levels, *reversed(levels))
        )
        cells = LATENT_CHANNELS * config.patch**2
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(cells, config.widths[0], kernel_size=1),
            MapNorm(config.widths[0]),
        )
        self.down_blocks = nn.ModuleList(self._down_level(level) for level in levels)
        self.up_blocks = nn.ModuleList(self._up_level(level) for level in reversed(levels))
        self.head = nn.Sequential(
            MapNorm(config.widths[0]),
            nn.Conv2d(config.widths[0], 2 * cells, kernel_size=1),
            nn.PixelShuffle(config.patch),
        )
        self._initialise()

    def condition(self, semantics: Tensor, text: Tensor, size: tuple[int, int]) -> StageBCondition:
        """Map semantics and text once for all steps.

        semantics  (B, S, h, w), unscaled
        text       (B, L, D) encoded captions
        size       (H, W) of the latents
        """
        levels = range(len(self.config.widths))
        height, width = (side // self.config.patch for side in size)
        sizes = [(height >> level, width >> level) for level in levels]
        resized = [_resize(semantics, each) for each in sizes]
        if self.subpixel is not None:
            detail = self.subpixel(semantics)  # (B, subpixel channels, f h, f w)
            joined = zip(resized, sizes, strict=True)
            resized = [torch.cat([y, _shrink(detail, each)], dim=1) for y, each in joined]
        tokens = self.text_mapper(text)
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)  # (B, L, condition width)
        conditions = [
            self._condition_level(mapper, blocks, resized[level], tokens)
            for mapper, blocks, level in zip(
                self.semantics_mappers,
                (*self.down_blocks, *self.up_blocks),
                (*levels, *reversed(levels)),
                strict=True,
            )
        ]
        down, up = conditions[: len(levels)], conditions[len(levels) :]
        return StageBCondition(tuple(down), tuple(up))

    def forward(self, x: Tensor, t: Tensor, condition: StageBCondition) -> Tensor:
        """(B, 4, H, W) noisy latents at (B,) times to the noise, which is of the latents' type.

        By the published head, unless the config names another prediction.
        """
        dtype = self.text_mapper.weight.dtype
        time = time_embedding(t, self.config.time_width).to(dtype)
        y = self.embedding(x.to(dtype).contiguous(memory_format=torch.channels_last))
        kept: list[Tensor] = []
        for blocks, level in zip(self.down_blocks, condition.down, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            if kept:
                y = blocks[0](y)  # to half the side
            y = self._run(blocks, y, level, None, time)
            kept.append(y)
        kept.pop()  # the coarsest level has no skip connection
        for blocks, level in zip(self.up_blocks, condition.up, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            skip = None if blocks is self.up_blocks[0] else kept.pop()
            y = self._run(blocks, y, level, skip, time)
            if blocks is not self.up_blocks[-1]:
                y = blocks[-1](y)  # to twice the side
        a, b = self.head(y).to(x.dtype).chunk(2, dim=1)  # (B, 4, H, W) each
        if self.config.predicts != "noise":
            return noise_of(self.config.predicts, a, x, t)
        divisor = b.sigmoid() * (1 - 2 * DIVISOR_MARGIN) + DIVISOR_MARGIN
        noise: Tensor = (x - a) / divisor
        return noise

    def hold_text(self) -> None:
        """Ignore text: its tokens become zeros, whatever the encoder returns."""
        for parameter in self.text_mapper.parameters():
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)

    def _run(
        self,
        blocks: nn.ModuleList,
        y: Tensor,
        condition: LevelCondition,
        skip: Tensor | None,
        time: Tensor,
    ) -> Tensor:
        """One level: convolution, time and, if the level has it, attention, block by block."""
        joined = () if condition.semantics is None else (condition.semantics,)
        texts = iter(condition.text)
        for group, folded in zip(_groups(blocks), condition.folded, strict=True):
            maps = joined if skip is None else (skip, *joined)
            skip = None  # only the first block of a level has it
            text = next(texts) if len(group) == WITH_ATTENTION else None
            if self.gradient_checkpointing and self.training:
                y = checkpoint(_pass, group, y, maps, folded, time, text, use_reentrant=False)
            else:
                y = _pass(group, y, maps, folded, time, text)
        return y

    def _condition_level(
        self, mapper: nn.Module, blocks: nn.Module, semantics: Tensor, tokens: Tensor
    ) -> LevelCondition:
        """Of (B, S, H, W) semantics at the level's size and (B, L, condition width) tokens."""
        assert isinstance(blocks, nn.ModuleList)
        groups = list(_groups(blocks))
        text = tuple(g[-1].condition(tokens) for g in groups if len(g) == WITH_ATTENTION)  # type: ignore[operator]
        if isinstance(mapper, nn.Identity):
            return LevelCondition(None, (None,) * len(groups), text)
        folded = tuple(group[0].fold(mapper) for group in groups)  # type: ignore[operator]
        if any(one is None for one in folded):
            semantics, folded = mapper(semantics), (None,) * len(groups)
        semantics = semantics.contiguous(memory_format=torch.channels_last)
        return LevelCondition(semantics, folded, text)

    def _blocks(self, level: int, skip_width: int) -> Iterator[nn.Module]:
        config, width = self.config, self.config.widths[level]
        joined = config.condition_width if config.semantics[level] else 0
        for index in range(config.blocks[level]):
            skips = joined + (skip_width if index == 0 else 0)
            yield ConvBlock(width, skips, config.dropout)
            yield TimeBlock(width, config.time_width)
            if config.heads[level]:
                heads, text_width = config.heads[level], config.condition_width
                yield AttentionBlock(width, text_width, heads, config.dropout)

    def _down_level(self, level: int) -> nn.ModuleList:
        widths, blocks = self.config.widths, nn.ModuleList()
        if level > 0:
            halve = nn.Conv2d(widths[level - 1], widths[level], kernel_size=2, stride=2)
            blocks.append(nn.Sequential(MapNorm(widths[level - 1]), halve))
        return blocks.extend(self._blocks(level, skip_width=0))

    def _up_level(self, level: int) -> nn.ModuleList:
        widths = self.config.widths
        coarsest = level == len(widths) - 1
        blocks = nn.ModuleList(self._blocks(level, skip_width=0 if coarsest else widths[level]))
        if level > 0:
            double = nn.ConvTranspose2d(widths[level], widths[level - 1], kernel_size=2, stride=2)
            blocks.append(nn.Sequential(MapNorm(widths[level]), double))
        return blocks

    def _initialise(self) -> None:
        """The published initialisation: no knowledge of the data, and blocks near the identity."""
        initialise(self)
        for mapper in self.semantics_mappers:
            if isinstance(mapper, nn.Conv2d):
                nn.init.normal_(mapper.weight, std=0.02)
        nn.init.normal_(self.text_mapper.weight, std=0.02)
        nn.init.xavier_uniform_(self.embedding[1].weight, gain=0.02)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[1].weight)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, ConvBlock):
                with torch.no_grad():
                    module.channelwise[-1].weight.mul_((1 / sum(self.config.blocks)) ** 0.5)  # type: ignore[operator]
            if isinstance(module, TimeBlock):
                nn.init.zeros_(module.mapper.weight)


def _resize(semantics: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, S, h, w) to (B, S, H, W); in fp32 whatever the dtype of the network, as published."""
    y = semantics.float()
    y = F.interpolate(y, size, mode="bicubic", antialias=True, align_corners=True)
    return y.to(semantics.dtype)


def subpixel_factor(patch: int) -> int:
    """Into how many cells per side a sub-pixel convolution divides a cell of the semantics.

    That is 10.67 latents wide: the next power of two is 16, in patches 16 / patch.
    """
    return 16 // patch


def _subpixel_convolution(config: StageBModel) -> nn.Sequential:
    """(B, S, h, w) to (B, subpixel channels, f h, f w) by one linear map of each cell."""
    factor = subpixel_factor(config.patch)
    channels = config.subpixel_channels * factor**2
    linear = nn.Conv2d(config.semantic_channels, channels, kernel_size=1, bias=False)
    return nn.Sequential(linear, nn.PixelShuffle(factor))


def _shrink(detail: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, f h, f w) to (B, C, H, W); in fp32 as `_resize`."""
    y = F.interpolate(detail.float(), size, mode="bilinear", antialias=True)
    return y.to(detail.dtype)


def _pass(
    group: list[nn.Module],
    y: Tensor,
    maps: tuple[Tensor, ...],
    folded: Folded | None,
    time: Tensor,
    text: TextKeys | None,
) -> Tensor:
    """Apply a convolution, its time and, if the level has it, its attention."""
    conv, at_time, *attention = group
    y = at_time(conv(y, *maps, folded=folded), time)
    for attend in attention:
        y = attend(y, text)
    return y


def _groups(blocks: nn.ModuleList) -> Iterator[list[nn.Module]]:
    """Split the flat list of a level into groups that start at each convolution.

    The layers to half and to twice the side, first or last in the list, are in no group.
    """
    group: list[nn.Module] = []
    for block in blocks:
        if isinstance(block, ConvBlock) and group:
            yield group
            group = []
        if not isinstance(block, nn.Sequential):
            group.append(block)
    if group:
        yield group
