"""What stands in a file of weights, without reading a weight; and its tensors, mapped from it.

A file is a safetensors file or one that `torch.save` wrote, told apart by their first bytes and
not by their names. What `torch.save` nests is joined by dots, so both are flat lists of keys.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.layout import prefix_of

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Kinds of numbers by their names in safetensors."""

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
POINTER = b"version https://git-lfs"
OPTIMIZER = "optimizer_state_dict"
"""Left out: a checkpoint's optimizer is twice as large as its network, and nobody draws with it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as its file announces it."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True, slots=True)
class Header:
    """All that a file says about itself."""

    path: Path
    kind: Literal["safetensors", "pt"]
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]

    def below(self, prefix: str) -> dict[str, Stored]:
        """The tensors of the network with that prefix, which is taken off their keys."""
        return self.groups().get(prefix, {})

    def groups(self) -> dict[str, dict[str, Stored]]:
        """Prefix to the tensors of one network, by the keys that are left."""
        groups: dict[str, dict[str, Stored]] = {}
        for key, stored in self.tensors.items():
            prefix = prefix_of(key)
            groups.setdefault(prefix, {})[key.removeprefix(prefix)] = stored
        return groups


def read_header(path: Path) -> Header:
    """Raises ModelFolderError for a file that is cut off, a pointer, or none of the two kinds."""
    if file_kind(path) == "pt":
        tensors = {
            key: Stored(tensor.dtype, tuple(tensor.shape))
            for key, tensor in _flat(_unpickled(path, "meta"))
        }
        return Header(path, "pt", tensors, {})
    try:
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # no mapping
            named = {key: (part.get_dtype(), part.get_shape()) for key, part in slices.items()}
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None
    strange = sorted({dtype for dtype, _ in named.values()} - DTYPES.keys())
    if strange:
        raise ModelFolderError(
            f"{path} holds numbers of the kind {strange[0]}, expected {', '.join(DTYPES)}; "
            "convert it with the tool that made it."
        )
    tensors = {key: Stored(DTYPES[dtype], tuple(shape)) for key, (dtype, shape) in named.items()}
    return Header(path, "safetensors", tensors, metadata)


def mapped(path: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Tensors that share the file's pages: nothing is read before it is used, nothing copied.

    The file must stay what it is for as long as they live.
    """
    if file_kind(path) == "pt":
        found = dict(_flat(_unpickled(path, "cpu")))
        return {key: found[key] for key in keys}
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in keys}
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None


def file_kind(path: Path) -> Literal["safetensors", "pt"]:
    """By the first bytes; raises ModelFolderError where the file cannot hold weights."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise ModelFolderError(
            f"{path} cannot be read ({error.strerror or error}); copy or download it again."
        ) from None
    if start.startswith(POINTER):
        raise ModelFolderError(
            f"{path} holds a pointer of Git LFS and no weights; fetch them with `git lfs pull`."
        )
    if start[:1] == PICKLE and start[8:9] != b"{":
        raise ModelFolderError(
            f"{path} is a pickle, or a file of torch before version 1.6, which is never opened, "
            "since it can run code; use a safetensors file of these weights."
        )
    return "pt" if start.startswith(ZIP) else "safetensors"


def damaged(path: Path, error: Exception) -> ModelFolderError:
    return ModelFolderError(
        f"{path} is damaged or cut off and cannot be read as safetensors ({error}); "
        "copy it again, or train that stage again."
    )


def _unpickled(path: Path, device: Literal["meta", "cpu"]) -> object:
    """What `torch.save` wrote, tensors and plain values only, as torch itself makes sure of."""
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise ModelFolderError(
            f"{path} holds Python objects beside its weights, which are never opened, since they "
            "can run code; use a safetensors file of these weights."
        ) from None
    except Exception as error:  # a damaged archive raises whatever its bytes lead to
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise ModelFolderError(
            f"{path} is damaged or cut off and cannot be read as a file of torch ({reason}); "
            "copy it again."
        ) from None


def _flat(values: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        yield prefix, values.detach()
    elif isinstance(values, Mapping):
        for key, value in values.items():
            if isinstance(key, str) and key != OPTIMIZER:
                yield from _flat(value, f"{prefix}.{key}" if prefix else key)
