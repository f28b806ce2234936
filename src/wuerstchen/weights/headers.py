"""Headers of weight files, which are read without a weight, and tensors mapped from such files.

A file is a safetensors file or one that `torch.save` wrote, distinguished by their first bytes,
not by their names. Nested keys of `torch.save` are joined by dots, so both are flat lists of keys.
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
from wuerstchen.weights.files import DTYPES
from wuerstchen.weights.layout import prefix_of

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
LFS_POINTER = b"version https://git-lfs"
OPTIMIZER = "optimizer_state_dict"
"""Skipped: a checkpoint's optimizer is twice as large as its network and unused here."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as its file's header states it."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of its elements."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors and metadata of a file."""

    path: Path
    format: Literal["safetensors", "pt"]
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    def below(self, prefix: str) -> dict[str, TensorInfo]:
        """The tensors of the network with that prefix, by keys without it."""
        return self.groups().get(prefix, {})

    def groups(self) -> dict[str, dict[str, TensorInfo]]:
        """The tensors of each network, by prefix and then by keys without it."""
        groups: dict[str, dict[str, TensorInfo]] = {}
        for key, info in self.tensors.items():
            prefix = prefix_of(key)
            groups.setdefault(prefix, {})[key.removeprefix(prefix)] = info
        return groups


def read_header(path: Path) -> Header:
    """Raises ModelFolderError for a file that is cut off, a pointer, or of neither format."""
    if file_format(path) == "pt":
        tensors = {
            key: TensorInfo(tensor.dtype, tuple(tensor.shape))
            for key, tensor in _flat(_unpickled(path, "meta"))
        }
        return Header(path, "pt", tensors, {})
    try:
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # no mapping
            found = {key: (each.get_dtype(), each.get_shape()) for key, each in slices.items()}
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None
    unknown = sorted({dtype for dtype, _ in found.values()} - DTYPES.keys())
    if unknown:
        raise ModelFolderError(
            f"{path} has tensors of dtype {unknown[0]}, expected {', '.join(DTYPES)}; "
            "convert it with the tool that made it."
        )
    tensors = {
        key: TensorInfo(DTYPES[dtype], tuple(shape)) for key, (dtype, shape) in found.items()
    }
    return Header(path, "safetensors", tensors, metadata)


def mapped(path: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Tensors that share the file's pages: nothing is read before it is used, nothing copied.

    The file must not change while they exist.
    """
    if file_format(path) == "pt":
        found = dict(_flat(_unpickled(path, "cpu")))
        return {key: found[key] for key in keys}
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in keys}
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None


def file_format(path: Path) -> Literal["safetensors", "pt"]:
    """The format by the first bytes; raises ModelFolderError for a file without weights."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise ModelFolderError(
            f"{path} cannot be read ({error.strerror or error}); copy or download it again."
        ) from None
    if start.startswith(LFS_POINTER):
        raise ModelFolderError(
            f"{path} is a Git LFS pointer without weights; fetch them with `git lfs pull`."
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
    """The contents of a `torch.save` file; torch itself allows only tensors and plain values."""
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise ModelFolderError(
            f"{path} has Python objects next to its weights, which are never opened, since they "
            "can run code; use a safetensors file of these weights."
        ) from None
    except Exception as error:  # a damaged archive can raise anything
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
