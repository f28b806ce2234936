"""Checkpoints in the format of torch's distributed checkpoint (DCP), as safetensors.

    checkpoints/000000016384/progress.json     progress of the run
    checkpoints/000000016384/*.safetensors     the tensors, with files of its own for each process
    checkpoints/000000016384/SHA256SUMS        the digests of all of these, checked before use
    checkpoints/000000016384.damaged/          one that did not match them

The best one is the earliest that has the lowest validation loss: it was saved with that result.

A checkpoint can be loaded with any number of processes. Nothing in it is a pickle.
"""

import json
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader as Reader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter as Writer
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from wuerstchen.digests import SUMS, difference, file_digests, read_sums, sums_text
from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.owned import remove_own
from wuerstchen.parsing import OWN, parse_object, read_bytes
from wuerstchen.training.distributed import (
    any_rank,
    barrier,
    gather,
    is_distributed,
    is_main_process,
    rank_and_world,
)
from wuerstchen.weights.files import replacing

FOLDER = "checkpoints"
"""Folder within that of a run."""

FILE_SIZE = 2**29
"""Approximate bytes per file; a file is assembled in memory before it is written."""

PROGRESS = "progress.json"
_OWN = re.compile(r"progress\.json|SHA256SUMS|[\w.-]+\.safetensors|\.metadata\S*")

Progress = dict[str, int | float | None]
"""State of the loop; JSON preserves every bit of these numbers."""

log = logging.getLogger(__name__)


def is_checkpoint_file(name: str) -> bool:
    """Whether a file in the folder of a checkpoint is part of it, by its name."""
    return _OWN.fullmatch(name) is not None


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
            if is_main_process():
                (folder / PROGRESS).write_text(json.dumps(progress, indent=1))
            barrier()
            digests = _digests(folder)
            if is_main_process():
                (folder / SUMS).write_text(sums_text(digests), encoding="utf-8")
        if is_main_process():
            self._prune()
        barrier()

    def newest(self) -> Checkpoint | None:
        """The newest one, or None for a new run. Damaged ones are renamed, with a warning.

        Raises TrainingError if there are only damaged ones.
        """
        return self._first(list(reversed(self._all())), "The run resumes from {}.")

    def best(self) -> Checkpoint | None:
        """The one with the lowest validation loss, or None before the first validation.

        If that is damaged, the next best is taken, with a warning.
        """
        return self._first(self._ranked(), "The stage ends with the weights of {} instead.")

    def _first(self, folders: Sequence[Path], consequence: str) -> Checkpoint | None:
        """The first of `folders` that is not damaged; None if there are none."""
        damaged: dict[Path, str] = {}
        for folder in folders:
            found = _open(folder)
            if isinstance(found, Checkpoint):
                for each, reason in damaged.items():
                    self._set_aside(each, reason, consequence.format(folder))
                return found
            damaged[folder] = found
        if damaged:
            raise _damaged(*next(iter(damaged.items())))
        return None

    def _set_aside(self, folder: Path, reason: str, consequence: str) -> None:
        """Rename a damaged checkpoint, so that it is neither read again nor counted as kept."""
        renamed = folder.with_name(f"{folder.name}.damaged")
        if is_main_process():
            message = "%s: expected a complete checkpoint, found a damaged one (%s). %s"
            log.warning(message, folder, reason, consequence)
            remove_own(renamed, is_checkpoint_file)
            with suppress(OSError):
                folder.rename(renamed)
        barrier()

    def clear(self) -> None:
        """Delete all checkpoints, once the stage is exported."""
        if is_main_process():
            damaged = [path for path in self._named(r"\d{12}\.damaged") if path.is_dir()]
            for path in (*self._all(), *self._leftovers(), *damaged):
                remove_own(path, is_checkpoint_file)
            with suppress(OSError):  # something else is in it
                self._folder.rmdir()

    def _all(self) -> list[Path]:
        return [path for path in self._named(r"\d{12}") if path.is_dir()]

    def _leftovers(self) -> list[Path]:
        """Temporary folders that a kill left."""
        return self._named(r"\.\d{12}\.(new|old)")

    def _named(self, pattern: str) -> list[Path]:
        return sorted(each for each in self._folder.glob("*") if re.fullmatch(pattern, each.name))

    def _ranked(self) -> list[Path]:
        """Those with a validation loss, the lowest first, and the earliest of equals."""
        losses = {folder: _validation_loss(folder) for folder in self._all()}
        return [each for each in sorted(losses, key=losses.__getitem__) if losses[each] < math.inf]

    def _prune(self) -> None:
        found = self._all()
        kept = {*found[-self._keep :], *self._ranked()[:1]}
        old = [path for path in found if path not in kept]
        for path in (*old, *self._leftovers()):
            remove_own(path, is_checkpoint_file)

    @contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """A temporary folder for all processes, which replaces the target at the end."""
        temporary = target.with_name(f".{target.name}.new")
        with ExitStack() as stack:
            failure: SaveError | None = None
            if is_main_process():
                try:
                    replaced = replacing(target, is_own=is_checkpoint_file)
                    (temporary,) = stack.enter_context(replaced)
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


def _digests(folder: Path) -> dict[str, str]:
    """The digests of all files of a new checkpoint. A collective call.

    Every process hashes what it wrote, which its machine still has in memory.
    """
    rank, world = rank_and_world()
    files = [path for path in folder.iterdir() if path.name != SUMS]
    own = [path for path in files if path.name.startswith(f"shard-{rank + 1:05d}-")]
    if rank == 0:
        others = tuple(f"shard-{other + 1:05d}-" for other in range(1, world))
        own = [path for path in files if not path.name.startswith(others)]
    digests: dict[str, str] = {}
    for text in gather(json.dumps(file_digests(own))):
        digests |= {name: str(digest) for name, digest in parse_object(text, OWN).items()}
    return digests


def _open(folder: Path) -> Checkpoint | str:
    """A checkpoint, or the reason why it is damaged. A collective call.

    Raises TrainingError if it may not be read.
    """
    reason = ""
    try:
        progress = _read_progress(folder)
        reason = _check_files(folder, progress)
        if not reason:
            metadata = Reader(str(folder)).read_metadata()
    except PermissionError as error:
        raise TrainingError(
            f"{folder} cannot be read ({error.strerror}); correct its permissions, or delete it "
            "to resume from the previous checkpoint."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        reason = str(error) or type(error).__name__
    if reasons := [text for text in gather(reason) if text]:
        return reasons[0]
    tensors = {
        name: TensorSpec(entry.size, entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    progress.pop("files", None)
    return Checkpoint(folder, progress, tensors)


def _read_progress(folder: Path) -> Progress:
    """Raises OSError or ValueError."""
    progress = cast(Progress, parse_object(read_bytes(folder / PROGRESS)))
    if progress.get("images") != int(folder.name):
        raise ValueError(f"{PROGRESS} has {progress.get('images')} images")
    return progress


def _check_files(folder: Path, progress: Mapping[str, object]) -> str:
    """The first difference between the files and what was recorded of them; or empty."""
    files = {path.name: path for path in folder.iterdir() if path.name != SUMS}
    # Versions that recorded no digests recorded the sizes of the tensors' files.
    sizes = None if (folder / SUMS).exists() else progress.get("files")
    digests = {} if isinstance(sizes, dict) else read_sums(folder)
    recorded = {PROGRESS, *sizes} if isinstance(sizes, dict) else digests.keys()
    if missing := sorted(recorded - files.keys()):
        return f"No such file: {missing[0]}"
    foreign = sorted(name for name in files.keys() - recorded if name.endswith(".safetensors"))
    if foreign:
        return f"{foreign[0]} is not a file of this checkpoint"
    if not isinstance(sizes, dict):
        rank, world = rank_and_world()
        return difference([files[name] for name in sorted(recorded)[rank::world]], digests)
    if is_main_process():
        log.info("%s has no digests (an earlier version saved it): only sizes are checked.", folder)
    for name, size in sizes.items():
        if (found := files[name].stat().st_size) != size:
            return f"{name} has {found} bytes instead of {size}"
    return ""


def _validation_loss(folder: Path) -> float:
    """The lowest validation loss up to a checkpoint."""
    try:
        value = _read_progress(folder)["held_out"]
        return math.inf if value is None or math.isnan(value) else float(value)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return math.inf


def _damaged(folder: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{folder}: expected a complete checkpoint, found a damaged one ({reason}), and no other "
        f"to resume from; restore it from a backup, or delete {folder.parent} to start again."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence DCP's warning about a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
