"""JSON and safetensors files, and folders that change as a whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wuerstchen.atomic_write import explain_disk_errors, fsync_file
from wuerstchen.errors import ModelFolderError, SaveError
from wuerstchen.parsing import ParseError, parse_json, read_bytes

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
"""Dtypes by their names in safetensors."""
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
Chunks = Mapping[str, Sequence[Tensor]]
"""Keys to the tensors whose rows a file joins under them; most have one."""


@contextmanager
def replacing(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Yield an empty folder per target, which replaces the target at the end of the block.

    After any failure the targets are unchanged. Raises SaveError where nothing can be written.
    """
    folders = tuple(target.with_name(f".{target.name}.new") for target in targets)
    try:
        for target, folder in zip(targets, folders, strict=True):
            _recover(target)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield folders
        for folder in folders:
            # safetensors makes files that only their owner can read: use the folder's permissions.
            mode = folder.stat().st_mode & 0o666
            for path in folder.iterdir():
                path.chmod(mode)
                fsync_file(path)
        _swap(targets, folders)
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SaveError(
            f"{targets[0]} could not be written ({reason}); the previous contents are unchanged. "
            "Free some space or choose a writable folder, then run the same command again."
        ) from error
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def current_path(target: Path) -> Path:
    """`target`, or its backup where a process was killed while replacing it."""
    backup = _backup(target)
    return backup if backup.exists() and not target.exists() else target


def json_text(values: Mapping[str, object]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def write_json(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json_text(values), encoding="utf-8")


def read_json(path: Path) -> dict[str, object]:
    """Raises ModelFolderError unless the file contains a JSON object."""
    try:
        return json_object(read_bytes(path), str(path))
    except (OSError, ParseError) as error:
        raise ModelFolderError(
            f"{path} cannot be read as JSON: {error}; copy or download it again."
        ) from None


def json_object(text: bytes | str, where: str) -> dict[str, object]:
    """Raises ModelFolderError unless `text` is a JSON object."""
    try:
        values = parse_json(text)
    except ParseError as error:
        raise ModelFolderError(
            f"{where} cannot be read as JSON: {error}; copy or download it again."
        ) from None
    if not isinstance(values, dict):
        raise ModelFolderError(f"{where}: expected a JSON object, found {type(values).__name__}.")
    return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write tensors as `dtype`, integers unchanged; raises SaveError for values not finite."""
    stored = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        if not kept.isfinite().all():
            raise SaveError(
                f"{name} has values that are not finite as {dtype}, so {path.name} was not "
                "written; the previous contents are unchanged."
            )
        stored[name] = kept.contiguous()
    save_file(stored, path, metadata={"format": "pt"})


def write_stream(
    path: Path, chunks: Chunks, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write a safetensors file tensor by tensor, so that a model need not fit into memory.

    dtype  of the weights; None keeps each tensor's own. Integers are unchanged.

    Raises SaveError where it cannot be written.
    """
    # Larger dtypes first, as safetensors sorts them, so that all tensors are aligned.
    keys = sorted(chunks, key=lambda key: (-_dtype(chunks[key], dtype).itemsize, key))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                header = _header(keys, chunks, metadata, dtype)
                file.write(len(header).to_bytes(8, "little") + header)
                for tensor in (tensor for key in keys for tensor in chunks[key]):
                    kept = tensor.to(_dtype([tensor], dtype)).contiguous()
                    file.write(kept.reshape(-1).view(torch.uint8).numpy().data)
            temporary.replace(path)
    except BaseException:  # also an interrupt must not leave half a file
        with suppress(OSError):
            temporary.unlink()
        raise


def _header(
    keys: Sequence[str], chunks: Chunks, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> bytes:
    values: dict[str, object] = {"__metadata__": {"format": "pt", **dict(sorted(metadata.items()))}}
    start = 0
    for key in keys:
        tensors, stored = chunks[key], _dtype(chunks[key], dtype)
        end = start + sum(tensor.numel() for tensor in tensors) * stored.itemsize
        shape = list(tensors[0].shape)
        if len(tensors) > 1:
            shape[0] = sum(tensor.shape[0] for tensor in tensors)
        values[key] = {"dtype": DTYPE_NAMES[stored], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _dtype(tensors: Sequence[Tensor], dtype: torch.dtype | None) -> torch.dtype:
    """The dtype in which a key is stored."""
    own = tensors[0].dtype
    found = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    if dtype is None and len(found) > 1:
        raise SaveError(
            "Expected tensors that are joined to have one dtype, found "
            f"{', '.join(sorted(found))}; pass --dtype fp32, which represents them all."
        )
    return dtype if dtype is not None and own.is_floating_point else own


def _backup(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _recover(target: Path) -> None:
    """Restore the backup, or delete it if the target exists."""
    backup = _backup(target)
    if target.exists():
        _remove(backup)
    elif backup.exists():
        os.replace(backup, target)


def _swap(targets: tuple[Path, ...], folders: tuple[Path, ...]) -> None:
    # No system call replaces a folder with files in it, so the old one is renamed first.
    moved: list[Path] = []
    try:
        for target, folder in zip(targets, folders, strict=True):
            if target.exists():
                os.replace(target, _backup(target))
            moved.append(target)
            os.replace(folder, target)
    except OSError:
        for target in moved:
            _remove(target)
            _recover(target)
        raise
    for target in targets:
        _remove(_backup(target))


def _remove(path: Path) -> None:
    """Remove a folder, or a link in its place, as far as possible."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
