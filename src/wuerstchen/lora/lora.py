"""A LoRA in memory: low-rank changes of layers, independent of the tool that wrote them.

O outputs of a layer, I its inputs (times the cells of the kernel, for a convolution), R rank.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Network = Literal["stage_c", "stage_b", "text_c"]
"""The networks that a LoRA may change; `text_c` is the text encoder of Stage C."""
Place = tuple[Network, str]
"""A network and the name of one of its layers."""
Format = Literal["peft", "diffusers", "kohya", "onetrainer", "original"]
"""The tool whose key names a file has; `original`: the authors' code, as in StableCascade."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraLayer:
    """The change of one weight: alpha / R * up @ down (arXiv:2106.09685, section 4.1)."""

    down: Tensor
    """(R, I), fp32"""
    up: Tensor
    """(O, R), fp32"""
    alpha: float
    kernel: tuple[int, ...] = ()
    """Kernel size of a convolution; empty for a linear layer."""

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def scale(self) -> float:
        """The factor of the product at weight 1."""
        return self.alpha / self.rank

    def delta(self) -> Tensor:
        """The change at weight 1, (O, I) in fp32."""
        return self.scale * (self.up @ self.down)

    def halves(self) -> tuple[Tensor, Tensor]:
        """Down and up in the shapes of layers: (R, I) and (O, R), or those of two convolutions."""
        if not self.kernel:
            return self.down, self.up
        down = self.down.unflatten(1, (-1, *self.kernel))  # (R, I, H, W)
        return down, self.up[:, :, None, None]  # (O, R, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """A LoRA that fits its networks; layers have our module names, per network."""

    source: str
    """Its origin, for messages."""
    format: Format
    layers: Mapping[Network, Mapping[str, LoraLayer]]
    unmatched: tuple[str, ...] = ()
    """Keys of the file that belong to no network; empty unless they were allowed."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, in ascending order."""
        return tuple(sorted({layer.rank for _, layer in self.items()}))

    def items(self) -> Iterator[tuple[Place, LoraLayer]]:
        for network, layers in self.layers.items():
            for name, layer in layers.items():
                yield (network, name), layer

    def __str__(self) -> str:
        counts = ", ".join(f"{len(found)} layers of {name}" for name, found in self.layers.items())
        ranks = ", ".join(map(str, self.ranks))
        more = f", {len(self.unmatched)} keys unmatched" if self.unmatched else ""
        return f"{self.source}: {self.format} LoRA for {counts}, rank {ranks}{more}"
