"""JSON and safetensors, and folders that change as a whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wuerstchen.atomic_write import fsync_file
from wuerstchen.errors import ModelFolderError, SaveError


@contextmanager
def replacing(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Yield an empty folder beside each target; at the end of the block it takes its place.

    After any failure the targets are what they were. Raises SaveError where nothing can be
    written.
    """
    asides = tuple(target.with_name(f".{target.name}.new") for target in targets)
    try:
        for target, aside in zip(targets, asides, strict=True):
            _undo(target)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        yield asides
        for aside in asides:
            _share(aside)
            for path in aside.iterdir():
                fsync_file(path)
        _swap(targets, asides)
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SaveError(
            f"{targets[0]} could not be written ({reason}); what was there before is untouched. "
            "Make room or choose a folder that may be written, then run the same command again."
        ) from error
    finally:
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)


def standing(target: Path) -> Path:
    """`target`, or its predecessor where a process was killed while it was being replaced."""
    old = _old(target)
    return old if old.exists() and not target.exists() else target


def write_json(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, object]:
    """Raises ModelFolderError unless the file holds a table."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(
            f"{path} cannot be read as JSON: {error}; copy or download it again."
        ) from None
    if not isinstance(values, dict):
        raise ModelFolderError(f"{path}: expected a table, found {type(values).__name__}.")
    return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write numbers as `dtype` (counters as they are), unless some would not be finite."""
    stored = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        if not kept.isfinite().all():
            raise SaveError(
                f"{name} holds values that are not finite as {dtype}, so {path.name} was not "
                "written; what was there before is untouched."
            )
        stored[name] = kept.contiguous()
    save_file(stored, path, metadata={"format": "pt"})


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _undo(target: Path) -> None:
    """Bring back what was moved away, or drop it where its successor stands."""
    old = _old(target)
    if target.exists():
        _remove(old)
    elif old.exists():
        os.replace(old, target)


def _swap(targets: tuple[Path, ...], asides: tuple[Path, ...]) -> None:
    # No call replaces a folder that holds files, so the old one steps aside for a moment.
    moved: list[Path] = []
    try:
        for target, aside in zip(targets, asides, strict=True):
            if target.exists():
                os.replace(target, _old(target))
            moved.append(target)
            os.replace(aside, target)
    except OSError:
        for target in moved:
            _remove(target)
            _undo(target)
        raise
    for target in targets:
        _remove(_old(target))


def _remove(path: Path) -> None:
    """Remove a folder, or the link that stands in its place, as far as that can be."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _share(folder: Path) -> None:
    # safetensors makes files that only their owner reads; give them the folder's permissions.
    mode = folder.stat().st_mode & 0o666
    for path in folder.iterdir():
        path.chmod(mode)
