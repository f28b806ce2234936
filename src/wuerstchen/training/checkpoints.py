"""Checkpoints in the format of torch's distributed checkpoint (DCP), as safetensors.

    checkpoints/000000016384/progress.json     progress of the run, and the size of each file
    checkpoints/000000016384/*.safetensors     the tensors, with files of its own for each process

The best one is the earliest that has the lowest validation loss: it was saved with that result.

A checkpoint can be loaded with any number of processes. Nothing in it is a pickle.
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
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader as Reader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter as Writer
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.training.distributed import any_rank, barrier, is_distributed, is_main_process
from wuerstchen.weights.files import replacing

FOLDER = "checkpoints"
"""Folder within that of a run."""

FILE_SIZE = 2**29
"""Approximate bytes per file; a file is assembled in memory before it is written."""

Progress = dict[str, int | float | None]
"""State of the loop; JSON preserves every bit of these numbers."""


class TensorSpec(NamedTuple):
    shape: torch.Size
    dtype: torch.dtype


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    folder: Path
    progress: Progress
    tensors: dict[str, TensorSpec]


class Checkpoints:
    """The newest checkpoints of a run, and the best one. All methods are collective calls."""

    def __init__(self, run: Path, keep: int) -> None:
        self._folder, self._keep = run / FOLDER, keep

    def started(self) -> bool:
        """Whether the run has saved a checkpoint, or tried to."""
        return any(self._folder.glob("*"))

    def save(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write a checkpoint atomically and delete old ones. Raises SaveError."""
        target = self._folder / f"{progress['images']:012d}"
        with self._replacing(target) as folder:
            _write(folder, dict(tensors))
            barrier()
            if is_main_process():
                sizes = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
                values = {**progress, "files": dict(sorted(sizes.items()))}
                (folder / "progress.json").write_text(json.dumps(values, indent=1))
        if is_main_process():
            self._prune()
        barrier()

    def newest(self) -> Checkpoint | None:
        """The newest one, or None for a new run. Raises TrainingError if it is damaged."""
        found = self._all()
        return _open(found[-1]) if found else None

    def best(self) -> Checkpoint | None:
        """The one with the lowest validation loss, or None before the first validation."""
        folder = self._best()
        return None if folder is None else _open(folder)

    def clear(self) -> None:
        """Delete all checkpoints, once the stage is exported."""
        if is_main_process():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(p for p in self._folder.glob("*") if p.is_dir() and p.name.isdecimal())

    def _best(self) -> Path | None:
        best = min(self._all(), key=_validation_loss, default=None)  # the earliest of equals
        return None if best is None or math.isinf(_validation_loss(best)) else best

    def _prune(self) -> None:
        old = [path for path in self._all()[: -self._keep] if path != self._best()]
        leftovers = [*self._folder.glob(".*.new"), *self._folder.glob(".*.old")]  # after a kill
        for path in (*old, *leftovers):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """A temporary folder for all processes, which replaces the target at the end."""
        temporary = target.with_name(f".{target.name}.new")
        with ExitStack() as stack:
            failure: SaveError | None = None
            if is_main_process():
                try:
                    (temporary,) = stack.enter_context(replacing(target))
                except SaveError as error:
                    failure = error
            if any_rank(failure is not None):
                raise failure or SaveError(f"{target} could not be created by the main process.")
            try:
                yield temporary
            except OSError as error:
                if is_main_process():  # `replacing` cleans up and explains
                    raise
                reason = error.strerror or str(error)
                raise SaveError(
                    f"{target} could not be written ({reason}); the previous checkpoint "
                    "is untouched. Free some space, then run the same command again."
                ) from error


def load(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Load a checkpoint into `tensors`, however it was sharded.

    Raises TrainingError if names or shapes do not match, and if it cannot be read.
    """
    reasons = [
        f"{name} is {'missing' if name in tensors else 'not part of these networks'}"
        for name in sorted(tensors.keys() ^ checkpoint.tensors.keys())
    ] or [
        f"{name} has the shape {list(saved)} instead of {list(tensor.shape)}"
        for name, tensor in tensors.items()
        if tensor.shape != (saved := checkpoint.tensors[name].shape)
    ]
    if reasons:
        raise TrainingError(
            f"{checkpoint.folder}: the checkpoint does not fit the networks of this config "
            f"({reasons[0]}); restore the config, or choose another output folder."
        )
    reader = Reader(str(checkpoint.folder))
    try:
        with _quiet():
            load_distributed(dict(tensors), storage_reader=reader, no_dist=not is_distributed())
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise _damaged(checkpoint.folder, str(cause)) from error


def _write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Raises OSError with the reason of the process that could not write."""
    writer = Writer(str(folder), _files(tensors), save_distributed=True)
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
    """The file number of each tensor, from 1."""
    files, written, number = {}, 0, 1
    for name, tensor in tensors.items():
        if written > FILE_SIZE:
            written, number = 0, number + 1
        files[name] = number
        written += tensor.numel() * tensor.element_size()
    return files


def _open(folder: Path) -> Checkpoint:
    try:
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        for name, size in progress.pop("files").items():
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found} bytes instead of {size}")
        if progress["images"] != int(folder.name):
            raise ValueError(f"progress.json has {progress['images']} images")
        metadata = Reader(str(folder)).read_metadata()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _damaged(folder, str(error) or type(error).__name__) from None
    tensors = {
        name: TensorSpec(entry.size, entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    return Checkpoint(folder, progress, tensors)


def _validation_loss(folder: Path) -> float:
    """The lowest validation loss up to a checkpoint."""
    try:
        value = json.loads((folder / "progress.json").read_text(encoding="utf-8"))["held_out"]
        return math.inf if value is None else float(value)
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def _damaged(folder: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{folder}: expected a complete checkpoint, found a damaged one ({reason}); delete this "
        "folder to resume from the previous one."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence DCP's warning about a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
