"""Headers of weight files, which are read without a weight, and tensors mapped from such files.

A file is a safetensors file or one that `torch.save` wrote, distinguished by their first bytes,
not by their names. Nested keys of `torch.save` are joined by dots, so both are flat lists of keys.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import DTYPES
from wuerstchen.weights.layout import prefix_of
from wuerstchen.weights.shards import is_shard_index, shard_of_tensors
from wuerstchen.weights.torch_files import read_torch

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
LFS_POINTER = b"version https://git-lfs"
MAX_HEADER = 64 * 2**20
"""Bytes of a safetensors header; whole models with tokenizers in theirs have about ten."""
MAX_TENSORS = 50_000
"""Tensors of a file; a whole published model has about 4,000."""
UNREADABLE = (OSError, OverflowError, RuntimeError, SafetensorError, TypeError, ValueError)
"""What safetensors and torch raise for damaged files and impossible shapes."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as its file's header states it."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors and metadata of a file."""

    path: Path
    format: Literal["safetensors", "pt"]
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    skipped: tuple[str, ...] = ()
    """Keys of contents that are never read, such as an optimizer."""

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
    """The header of a file, or of all shards of an index.

    Raises ModelFolderError for a file that is cut off, a pointer, or of neither format.
    """
    if is_shard_index(path):
        return _header_of_shards(path)
    if file_format(path) == "pt":
        found_tensors, skipped = read_torch(path, "meta")
        tensors = {
            key: TensorInfo(tensor.dtype, tuple(tensor.shape))
            for key, tensor in found_tensors.items()
        }
        return Header(path, "pt", tensors, {}, skipped)
    _check_length(path)
    try:
        with safe_open(path, "pt") as file:
            keys = file.keys()
            if len(keys) > MAX_TENSORS:
                raise _too_large(path, f"{MAX_TENSORS:,} tensors", f"{len(keys):,}")
            slices = {key: file.get_slice(key) for key in keys}
            found = {key: (each.get_dtype(), each.get_shape()) for key, each in slices.items()}
            metadata = dict(file.metadata() or {})
    except UNREADABLE as error:
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
    keys = list(keys)
    if is_shard_index(path):
        shards = shard_of_tensors(path)
        parts = {shard: [key for key in keys if shards[key] == shard] for shard in shards.values()}
        joined = {
            key: tensor
            for shard, own in parts.items()
            for key, tensor in mapped(shard, own).items()
        }
        return {key: joined[key] for key in keys}
    if file_format(path) == "pt":
        found, _ = read_torch(path, "cpu")
        return {key: found[key] for key in keys}
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in keys}
    except UNREADABLE as error:
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


def _header_of_shards(index: Path) -> Header:
    """The tensors of all shards as one file; raises ModelFolderError where they disagree."""
    shards = shard_of_tensors(index)
    headers = {shard: read_header(shard) for shard in sorted(set(shards.values()))}
    for key, shard in shards.items():
        if key not in headers[shard].tensors:
            raise ModelFolderError(
                f"{index} says that {shard.name} has {key}, which it lacks; copy both again."
            )
    for shard, header in headers.items():
        surplus = next((key for key in header.tensors if shards.get(key) != shard), None)
        if surplus is not None:
            raise ModelFolderError(
                f"{shard} has {surplus}, which {index.name} does not say; copy both again."
            )
    tensors = {key: headers[shard].tensors[key] for key, shard in shards.items()}
    return Header(index, "safetensors", tensors, {})


def _check_length(path: Path) -> None:
    """Raise ModelFolderError for a header that is too large to be one."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MAX_HEADER < length <= path.stat().st_size:
        raise _too_large(path, f"a header of {MAX_HEADER:,} bytes", f"{length:,}")


def _too_large(path: Path, limit: str, found: str) -> ModelFolderError:
    return ModelFolderError(
        f"{path}: expected at most {limit}, found {found}; it is damaged or no model: copy it "
        "again."
    )
