"""The authors' own key names: where they store the tensors that diffusers names otherwise."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from wuerstchen.weights.component_files import Naming

CODEBOOK = ("vquantizer.embedding.", "vquantizer.codebook.")
OUTPUT = (".attention.to_out.0.", ".attention.attn.out_proj.")
QKV = ("to_q", "to_k", "to_v")
"""Query, key and value: three linear layers that the authors join in one, in this order."""
JOINED = ".attention.attn.in_proj_"


class TensorSource(NamedTuple):
    """Where a file stores the tensor of a published name."""

    key: str
    third: int | None = None
    """Third of the rows: 0, 1 or 2; None: all rows."""

    def cut(self, tensor: Tensor) -> Tensor:
        return tensor if self.third is None else tensor.chunk(3)[self.third]

    def cut_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `cut` of a tensor of `shape`."""
        if self.third is None or not shape:
            return shape
        return (shape[0] // 3, *shape[1:])


def source_of(published: str, naming: Naming) -> TensorSource:
    """Where a file of that naming stores the tensor that diffusers calls `published`."""
    if naming == "published":
        return TensorSource(published)
    for index, third in enumerate(QKV):
        if f".attention.{third}." in published:
            return TensorSource(published.replace(f".attention.{third}.", JOINED), index)
    return TensorSource(published.replace(*CODEBOOK).replace(*OUTPUT))


def published_names(key: str, naming: Naming) -> list[tuple[str, TensorSource]]:
    """The inverse: the published names of the tensors that a file stores under `key`."""
    if naming == "published":
        return [(key, TensorSource(key))]
    if JOINED in key:
        names = [key.replace(JOINED, f".attention.{third}.") for third in QKV]
        return [(name, TensorSource(key, index)) for index, name in enumerate(names)]
    name = key.replace(CODEBOOK[1], CODEBOOK[0]).replace(OUTPUT[1], OUTPUT[0])
    return [(name, TensorSource(key))]


def to_original(published: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """The authors' keys, each with the tensors whose rows it joins, in order."""
    joined: dict[str, list[tuple[int, Tensor]]] = {}
    for name, tensor in published.items():
        source = source_of(name, "original")
        joined.setdefault(source.key, []).append((source.third or 0, tensor))
    return {
        key: [tensor for _, tensor in sorted(thirds, key=lambda third: third[0])]
        for key, thirds in joined.items()
    }
