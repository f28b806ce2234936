"""The authors' own key names: where they keep the tensors that diffusers names otherwise."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from wuerstchen.weights.parts import Naming

CODEBOOK = ("vquantizer.embedding.", "vquantizer.codebook.")
OUTPUT = (".attention.to_out.0.", ".attention.attn.out_proj.")
THIRDS = ("to_q", "to_k", "to_v")
"""Query, key and value: three linear maps that the authors keep in one, in this order."""
JOINED = ".attention.attn.in_proj_"


class Spot(NamedTuple):
    """Where the tensor of a published name is stored."""

    key: str
    third: int | None = None
    """Of the rows: None for all, or 0, 1 or 2."""

    def cut(self, tensor: Tensor) -> Tensor:
        return tensor if self.third is None else tensor.chunk(3)[self.third]

    def rows(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what `cut` makes of a tensor of the shape."""
        if self.third is None or not shape:
            return shape
        return (shape[0] // 3, *shape[1:])


def spot(published: str, naming: Naming) -> Spot:
    """Where a file of that naming has the tensor that diffusers calls `published`."""
    if naming == "published":
        return Spot(published)
    for index, third in enumerate(THIRDS):
        if f".attention.{third}." in published:
            return Spot(published.replace(f".attention.{third}.", JOINED), index)
    return Spot(published.replace(*CODEBOOK).replace(*OUTPUT))


def published_names(key: str, naming: Naming) -> list[tuple[str, Spot]]:
    """The other way round: the published names of what a file keeps under `key`."""
    if naming == "published":
        return [(key, Spot(key))]
    if JOINED in key:
        names = [key.replace(JOINED, f".attention.{third}.") for third in THIRDS]
        return [(name, Spot(key, index)) for index, name in enumerate(names)]
    name = key.replace(CODEBOOK[1], CODEBOOK[0]).replace(OUTPUT[1], OUTPUT[0])
    return [(name, Spot(key))]


def to_original(published: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """The authors' names to the tensors whose rows are kept there, one after the other."""
    gathered: dict[str, list[tuple[int, Tensor]]] = {}
    for name, tensor in published.items():
        at = spot(name, "original")
        gathered.setdefault(at.key, []).append((at.third or 0, tensor))
    return {
        key: [tensor for _, tensor in sorted(thirds, key=lambda third: third[0])]
        for key, thirds in gathered.items()
    }
