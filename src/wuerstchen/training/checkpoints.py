"""Checkpoints by torch's distributed checkpoint (DCP), as safetensors; every process takes part.

    checkpoints/000000016384/progress.json          how far the run was, and how long each file is
    checkpoints/000000016384/*.safetensors          the tensors, each process's shards in own files

The best is the first of those that know the lowest held-out loss: it was saved when that was found.

What was written by one number of processes is read by any other. Nothing in it is a pickle.
"""

import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.training.distributed import any_rank, barrier, is_distributed, is_main_process
from wuerstchen.weights.files import replacing

FOLDER = "checkpoints"
"""In the folder of a run."""

FILE_SIZE = 2**29
"""Bytes of tensors in a file, about: a file is put together in memory before it is written."""

Progress = dict[str, int | float | None]
"""How far a run was; JSON keeps every bit of these numbers."""


class TensorSpec(NamedTuple):
    shape: torch.Size
    dtype: torch.dtype


class Checkpoint(NamedTuple):
    """One that was found whole."""

    folder: Path
    facts: Progress
    shapes: dict[str, TensorSpec]


class Checkpoints:
    """The newest few of a run, and the best. All processes make the same calls."""

    def __init__(self, run: Path, keep: int) -> None:
        self._folder, self._keep = run / FOLDER, keep

    def started(self) -> bool:
        """Whether anything was saved yet, or tried to be."""
        return any(self._folder.glob("*"))

    def save(self, tensors: Mapping[str, Tensor], facts: Progress) -> None:
        """Write a checkpoint aside, rename it, and let the oldest go. Raises SaveError."""
        target = self._folder / f"{facts['images']:012d}"
        with self._replaced(target) as aside:
            _write(aside, dict(tensors))
            barrier()
            if is_main_process():
                sizes = {path.name: path.stat().st_size for path in aside.glob("*.safetensors")}
                progress = {**facts, "files": dict(sorted(sizes.items()))}
                (aside / "progress.json").write_text(json.dumps(progress, indent=1))
        if is_main_process():
            self._let_go()
        barrier()

    def newest(self) -> Checkpoint | None:
        """The newest one, or None for a new run. Raises TrainingError where it is damaged."""
        found = self._all()
        return _open(found[-1]) if found else None

    def best(self) -> Checkpoint | None:
        """The one with the lowest held-out loss, or None before the first look."""
        folder = self._best()
        return None if folder is None else _open(folder)

    def clear(self) -> None:
        """Free the disk once the stage is exported."""
        if is_main_process():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(p for p in self._folder.glob("*") if p.is_dir() and p.name.isdecimal())

    def _best(self) -> Path | None:
        losses = {folder: _held_out(folder) for folder in self._all()}
        best = min(losses, key=lambda folder: losses[folder], default=None)  # the first of equals
        return None if best is None or math.isinf(losses[best]) else best

    def _let_go(self) -> None:
        old = [path for path in self._all()[: -self._keep] if path != self._best()]
        left = [*self._folder.glob(".*.new"), *self._folder.glob(".*.old")]  # by one killed
        for path in (*old, *left):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _replaced(self, target: Path) -> Iterator[Path]:
        """A folder that all processes may write into; it takes the target's place at the end."""
        aside = target.with_name(f".{target.name}.new")
        with ExitStack() as held:
            failure: SaveError | None = None
            if is_main_process():
                try:
                    (aside,) = held.enter_context(replacing(target))
                except SaveError as error:
                    failure = error
            if any_rank(failure is not None):
                raise failure or SaveError(f"{target} could not be made by the first process.")
            try:
                yield aside
            except OSError as error:
                if is_main_process():  # `replacing` puts everything back and says so
                    raise
                reason = error.strerror or str(error)
                raise SaveError(
                    f"{target} could not be written ({reason}); the checkpoint before is "
                    "untouched. Make room, then run the same command again."
                ) from error


def load(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors` with what was saved, however it was sharded.

    Raises TrainingError where names or shapes are others than those of the checkpoint, and where
    it cannot be read any more.
    """
    for name in sorted(tensors.keys() ^ checkpoint.shapes.keys()):
        where = "is not there" if name in tensors else "is not part of these networks"
        raise TrainingError(_other_networks(checkpoint, f"{name} {where}"))
    for name, tensor in tensors.items():
        saved = checkpoint.shapes[name].shape
        if tensor.shape != saved:
            reason = f"{name} has the shape {list(saved)} and not {list(tensor.shape)}"
            raise TrainingError(_other_networks(checkpoint, reason))
    reader = HuggingFaceStorageReader(str(checkpoint.folder))
    try:
        with _quiet():
            load_distributed(dict(tensors), storage_reader=reader, no_dist=not is_distributed())
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise _damaged(checkpoint.folder, str(cause)) from error


def _other_networks(checkpoint: Checkpoint, reason: str) -> str:
    return (
        f"{checkpoint.folder}: the checkpoint there is of other networks than this config makes "
        f"({reason}); restore the config, or choose another output folder."
    )


def _write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Raises OSError with the reason for which a process could not write."""
    writer = HuggingFaceStorageWriter(str(folder), _files(tensors), save_distributed=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}  # channels-last ones
    try:
        with _quiet():
            save_distributed(tensors, storage_writer=writer, no_dist=not is_distributed())
    except CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror) from error
        raise OSError(str(next(iter(error.failures.values()))[0])) from error


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Which file each tensor goes to, counted from 1."""
    files, written, at = {}, 0, 1
    for name, tensor in tensors.items():
        if written > FILE_SIZE:
            written, at = 0, at + 1
        files[name] = at
        written += tensor.numel() * tensor.element_size()
    return files


def _open(folder: Path) -> Checkpoint:
    try:
        facts = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        for name, size in facts.pop("files").items():
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found} bytes instead of {size}")
        if facts["images"] != int(folder.name):
            raise ValueError(f"progress.json is of {facts['images']} images")
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _damaged(folder, str(error) or type(error).__name__) from None
    shapes = {
        name: TensorSpec(entry.size, entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    return Checkpoint(folder, facts, shapes)


def _held_out(folder: Path) -> float:
    """The lowest held-out loss that a checkpoint knows of."""
    try:
        value = json.loads((folder / "progress.json").read_text(encoding="utf-8"))["held_out"]
        return math.inf if value is None else float(value)
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def _damaged(folder: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{folder}: expected a whole checkpoint, found a damaged one ({reason}); delete this "
        "folder to resume from the one before."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP warns of a single process, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
