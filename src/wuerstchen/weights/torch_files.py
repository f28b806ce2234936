"""Files that `torch.save` wrote: read without running code, in memory bounded by their size.

torch reads its pickles with only tensors and plain values allowed. What it does not bound is
checked here: archives that inflate, tensors larger than their file, and endless nesting.
"""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wuerstchen.errors import ModelFolderError

OPTIMIZER = "optimizer_state_dict"
"""Skipped: a checkpoint's optimizer is twice as large as its network and unused here."""

MAX_ENTRIES = 100_000
"""Entries of an archive, and values of the dictionaries in it; the published files have 1,600."""
MAX_PICKLE = 64 * 2**20
"""Bytes of the pickle that names the tensors, whose values are outside of it."""
MAX_DEPTH = 16
"""Dictionaries in dictionaries; checkpoints have about three."""
MAX_SHARING = 4
"""Bytes of all tensors, as multiples of the file: several names may share one tensor."""

END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
END_SIZE, LOCATOR_SIZE, MAX_COMMENT = 22, 20, 65_535


def read_torch(
    path: Path, device: Literal["meta", "cpu"]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a `torch.save` file, nested keys joined by dots, and keys left out.

    device  meta reads no tensor

    Raises ModelFolderError for a damaged file, Python objects, and sizes that are untrue.
    """
    try:
        _check_archive(path)
        contents = torch.load(path, map_location=device, weights_only=True, mmap=True)
        tensors, skipped = _flat(contents, path)
    except ModelFolderError:
        raise
    except pickle.UnpicklingError:
        raise ModelFolderError(
            f"{path} has Python objects next to its weights, which are never opened, since they "
            "can run code; use a safetensors file of these weights."
        ) from None
    except Exception as error:  # a damaged archive can raise anything
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise ModelFolderError(
            f"{path} is damaged or cut off and cannot be read as a file of torch "
            f"({reason or type(error).__name__}); copy it again."
        ) from None
    _check_tensors(tensors, path, device)
    return tensors, skipped


def _check_archive(path: Path) -> None:
    """Raise ModelFolderError where reading would take more memory than the file has bytes."""
    if (entries := _entry_count(path)) > MAX_ENTRIES:
        raise ModelFolderError(
            f"{path}: expected at most {MAX_ENTRIES:,} entries, found {entries:,}; use a "
            "safetensors file of these weights."
        )
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            # torch.save never compresses, and torch would map compressed bytes as weights.
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ModelFolderError(
                    f"{path}: expected entries as torch.save writes them, found {entry.filename} "
                    "compressed; unpack the archive and save its weights again."
                )
            if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE:
                raise ModelFolderError(
                    f"{path}: expected a pickle of at most {MAX_PICKLE:,} bytes beside the "
                    f"weights, found {entry.file_size:,}; use a safetensors file of these weights."
                )


def _entry_count(path: Path) -> int:
    """The entries that the archive's last record states; 0 if it has none, which torch reports."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail_size = min(size, END_SIZE + MAX_COMMENT + LOCATOR_SIZE)
        file.seek(size - tail_size)
        tail = file.read(tail_size)
        at = tail.rfind(END)
        if at < 0 or len(tail) < at + END_SIZE:
            return 0
        count = int(struct.unpack_from("<H", tail, at + 10)[0])
        locator = at - LOCATOR_SIZE
        if locator >= 0 and tail.startswith(LOCATOR_64, locator):
            file.seek(min(struct.unpack_from("<Q", tail, locator + 8)[0], size))
            record = file.read(40)
            if record.startswith(END_64) and len(record) == 40:
                count = max(count, int(struct.unpack_from("<Q", record, 32)[0]))
    return count


def _flat(contents: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All tensors by their joined keys, and keys left out; endless nesting is an error."""
    tensors: dict[str, Tensor] = {}
    skipped: list[str] = []
    visited = 0
    waiting: list[tuple[str, object, int]] = [("", contents, 0)]
    while waiting:
        prefix, values, depth = waiting.pop()
        visited += 1
        if visited > MAX_ENTRIES or depth > MAX_DEPTH:
            raise ModelFolderError(
                f"{path}: expected at most {MAX_ENTRIES:,} tensors in {MAX_DEPTH} levels of "
                "dictionaries, found more; save the weights of the network alone."
            )
        if isinstance(values, Tensor):
            tensors[prefix] = values.detach()
        elif isinstance(values, Mapping):
            named = {
                key: f"{prefix}.{key}" if prefix else key for key in values if isinstance(key, str)
            }
            skipped += [name for key, name in named.items() if key == OPTIMIZER]
            children = [
                (name, values[key], depth + 1) for key, name in named.items() if key != OPTIMIZER
            ]
            waiting += reversed(children)
    return tensors, tuple(skipped)


def _check_tensors(
    tensors: Mapping[str, Tensor], path: Path, device: Literal["meta", "cpu"]
) -> None:
    """Raise ModelFolderError for sizes that the file cannot contain, and unusual storage."""
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            kind = "quantised" if tensor.is_quantized else str(tensor.layout).split(".")[-1]
            raise ModelFolderError(
                f"{path}: expected dense weights, found {key} {kind}; save it as fp32."
            )
        if device == "cpu" and tensor.is_meta:
            raise ModelFolderError(f"{path}: {key} was saved without values; save it again.")
    size = path.stat().st_size
    sizes = {key: tensor.numel() * tensor.itemsize for key, tensor in tensors.items()}
    largest = max(sizes, key=lambda key: sizes[key], default=None)
    if largest is not None and (sizes[largest] > size or sum(sizes.values()) > MAX_SHARING * size):
        raise ModelFolderError(
            f"{path} has {size:,} bytes, but states {sum(sizes.values()):,} bytes of tensors "
            f"({sizes[largest]:,} of {largest}); copy it again."
        )
