"""A component: the config and network in its files, empty or with weights, and saving it.

Weights are memory-mapped where possible: they share the pages of the file if it has the requested
dtype, and are converted tensor by tensor if not. What must outlive its file is copied.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.headers import TensorInfo, mapped, read_header
from wuerstchen.weights.layout import ComponentName
from wuerstchen.weights.names import NAMES, our_key, text_names
from wuerstchen.weights.original import published_names
from wuerstchen.weights.scan import scan_component

TENSORS_PER_BLOCK = 6
"""At least; blocks of all components have more."""

N = TypeVar("N", bound=nn.Module)
C = TypeVar("C")


class Component(ABC, Generic[N, C]):
    """One of the networks of a model."""

    def __init__(self, name: ComponentName) -> None:
        self.name = name

    @abstractmethod
    def config(self, files: ComponentFiles) -> C:
        """The sizes of the network; raises ModelFolderError where they cannot be read."""

    @abstractmethod
    def empty(self, files: ComponentFiles) -> N:
        """The network without weights, on the meta device in eval mode; no weight is read.

        Keys and shapes in the file are checked against it, so that `fill` will fit. Raises
        ModelFolderError where they do not.
        """

    def load(
        self,
        source: Path | ComponentFiles,
        dtype: torch.dtype = torch.float32,
        *,
        mmap: bool = False,
    ) -> N:
        """The network on the CPU in eval mode.

        source  a folder or file that has it, in any layout, or the files of the component
        mmap    share the pages of the file, which must not change meanwhile, instead of copying

        Raises ModelFolderError where a file is missing, damaged or does not fit.
        """
        files = scan_component(source, self.name) if isinstance(source, Path) else source
        return fill(self.empty(files), files, dtype, copy=not mmap)

    @abstractmethod
    def save(self, folder: Path, network: N, dtype: torch.dtype = torch.float32) -> None:
        """Write the network into its folder of a model folder, which changes as a whole.

        dtype  of the weights; bf16 or fp16 halve the file

        Raises SaveError and leaves what was there.
        """


def fill(
    network: N, files: ComponentFiles, dtype: torch.dtype = torch.float32, *, copy: bool = False
) -> N:
    """Load the weights into an empty network; they are mapped where possible, unless copied."""
    network.load_state_dict(tensors(files, dtype, copy=copy), assign=True)
    return network.to(dtype)  # for what is not in the file


def tensors(
    files: ComponentFiles, dtype: torch.dtype = torch.float32, *, copy: bool = False
) -> dict[str, Tensor]:
    """The weights by their names in the network's state dict (of a TextEncoder: `model.…`).

    Those stored as `dtype` are mapped unless copied, others converted; integers keep their dtype.
    """
    published = published_tensors(files)
    if files.component in ("text_b", "text_c"):
        ours = {key: f"model.{name}" for key, name in text_names(published).items()}
    else:
        ours = {key: our_key(key, NAMES[files.component]) for key in published}
    return {
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=copy)
        for name, tensor in ((name, published[key]) for key, name in ours.items())
    }


def published_tensors(files: ComponentFiles) -> dict[str, Tensor]:
    """The weights by diffusers' names, mapped and unconverted; those of text as in their file."""
    stored = read_header(files.weights).below(files.prefix)
    sources = dict(pair for key in stored for pair in published_names(key, files.naming))
    found = mapped(files.weights, {files.prefix + source.key for source in sources.values()})
    return {name: source.cut(found[files.prefix + source.key]) for name, source in sources.items()}


def stored_dtype(files: ComponentFiles) -> torch.dtype:
    """The dtype of most of the component's weights in their file."""
    counts: dict[torch.dtype, int] = {}
    for stored in read_header(files.weights).below(files.prefix).values():
        if stored.dtype.is_floating_point:
            counts[stored.dtype] = counts.get(stored.dtype, 0) + stored.count
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def check_blocks(files: ComponentFiles, blocks: int, stored: Collection[str]) -> None:
    """Raise ModelFolderError if a config names more blocks than the tensors stored can be.

    It is checked before a network is built, which would take forever for an untrue depth.
    """
    if blocks * TENSORS_PER_BLOCK > len(stored):
        raise ModelFolderError(
            f"{files.config or files.weights}: expected the sizes of the weights in "
            f"{files.weights.name}, found {blocks:,} blocks, but only {len(stored):,} tensors "
            "there; copy both files again."
        )


def check_stored(files: ComponentFiles, key: str, stored: TensorInfo, expected: Tensor) -> None:
    """Raise ModelFolderError for integers in place of weights, as in quantised files."""
    if expected.is_floating_point() and not stored.dtype.is_floating_point:
        dtype = str(stored.dtype).removeprefix("torch.")
        raise ModelFolderError(
            f"{files.weights}: expected floating-point weights, found {key} as {dtype}; use a "
            "file that is not quantised."
        )


def check_keys(files: ComponentFiles, expected: Collection[str], found: Collection[str]) -> None:
    """Raise ModelFolderError unless the file has exactly the tensors of the network."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    if missing or unexpected:
        raise ModelFolderError(
            f"{files.weights}: expected {len(expected)} tensors, found {len(found)}: "
            f"{_listed('missing', missing)}, {_listed('unexpected', unexpected)}; the weights "
            f"do not belong to {files.config_source}."
        )


def _listed(what: str, keys: Sequence[str]) -> str:
    first = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    return f"{len(keys)} {what}" + (f" ({first})" if keys else "")
