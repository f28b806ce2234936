"""Writing large safetensors files tensor by tensor, so that a model need not fit into memory."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen.atomic_write import explain_disk_errors
from wuerstchen.errors import SaveError
from wuerstchen.weights.headers import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNKS = Mapping[str, Sequence[Tensor]]
"""Keys to tensors whose rows follow each other in the file; most have one."""


def write_stream(
    path: Path, chunks: CHUNKS, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write aside and rename.

    dtype  of the numbers; None keeps each tensor's own. Counters stay what they are.

    Raises SaveError where it cannot be written, or numbers would not be finite as `dtype`.
    """
    keys = sorted(chunks, key=lambda key: (-_kind(chunks[key], dtype).itemsize, key))  # aligned
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                header = _header(keys, chunks, metadata, dtype)
                file.write(len(header).to_bytes(8, "little"))
                file.write(header)
                for content in _contents(path, keys, chunks, dtype):
                    file.write(content)
            aside.replace(path)
    except BaseException:  # whatever it was, nothing half-written stays
        with suppress(OSError):
            aside.unlink()
        raise


def _header(
    keys: Sequence[str], chunks: CHUNKS, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> bytes:
    values: dict[str, object] = {"__metadata__": {"format": "pt", **dict(sorted(metadata.items()))}}
    start = 0
    for key in keys:
        tensors, kind = chunks[key], _kind(chunks[key], dtype)
        end = start + sum(tensor.numel() for tensor in tensors) * kind.itemsize
        shape = list(tensors[0].shape)
        if len(tensors) > 1:
            shape[0] = sum(tensor.shape[0] for tensor in tensors)
        values[key] = {"dtype": NAMES[kind], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _contents(
    path: Path, keys: Sequence[str], chunks: CHUNKS, dtype: torch.dtype | None
) -> Iterator[memoryview]:
    for key in keys:
        for tensor in chunks[key]:
            kept = tensor.to(_kind([tensor], dtype))
            if dtype is not None and not kept.isfinite().all():
                raise SaveError(
                    f"{key} holds values that are not finite as {dtype}, so {path.name} was not "
                    "written; what was there before is untouched."
                )
            yield kept.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _kind(tensors: Sequence[Tensor], dtype: torch.dtype | None) -> torch.dtype:
    own = tensors[0].dtype
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    if dtype is None and len(kinds) > 1:
        raise SaveError(
            "Expected the parts of one tensor in one kind of numbers, found "
            f"{', '.join(sorted(kinds))}; pass --dtype fp32, which holds them all."
        )
    return dtype if dtype is not None and own.is_floating_point else own
