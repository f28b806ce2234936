"""The ledger of a folder: one line of JSON for each phase of work in it.

FOLDER/runs/phases.jsonl    ended phases, append-only
FOLDER/runs/open/ID.json    a running phase, at most a few seconds old
FOLDER/runs/open/ID.lock    locked by its process; the system releases it if that is killed

A phase whose process was killed therefore has a file but no lock, and only its last seconds are
lost. Lines that a kill or a full disk truncated are skipped.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

import wuerstchen
from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.receipts.amounts import Amounts

_OLD_KINDS = {"look": "validation", "failed tries": "failed attempts"}


def current_kind(kind: object) -> object:
    """The current name of a kind of work; earlier ledgers and receipts have others."""
    return _OLD_KINDS.get(kind, kind) if isinstance(kind, str) else kind


Kind = Annotated[
    Literal["preparation", "encoding", "training", "validation", "evaluation"],
    BeforeValidator(current_kind),
]

End = Literal["open", "done", "stopped", "killed"]
"""Running; ended normally; by an error or Ctrl-C; by the system."""

LEDGER = Path("runs", "phases.jsonl")
OPEN = Path("runs", "open")


class Phase(BaseModel):
    """The work of one process, from its start or resumption to its end."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    stage: str
    """Name of the run folder, such as `b-pretraining`; `data`: preparation; `model`: all stages."""
    kind: Kind
    started: str
    """Date and time in UTC, ISO 8601, which sort as text."""
    end: End
    error: str = ""
    """First line of the error that stopped it."""
    resumed_at: int | None = Field(default=None, alias="at")
    """Images of earlier phases that it resumed from; work beyond them is lost. None if the work
    cannot be resumed."""
    saved: int | None = Field(default=None, alias="standing")
    """Its images whose results are on disk, however it ended; None if that depends on its end or on
    a later phase."""
    devices: int
    device: str
    work: dict[Kind, Amounts]
    """Amounts by kind: its own, and validation within a training."""
    energy: str
    """How its energy was determined."""
    country: str
    grams_per_kwh: float
    """CO2 intensity of the country's electricity."""
    code: str
    config: str
    data: str
    """SHA-256 of the package's code, of the config, and of the data; or empty."""
    origin: str = ""
    """The model it was measured in, if this one was merged or converted from that; empty if it was
    measured here, or comes from a prepared set."""


@cache
def code_digest() -> str:
    """SHA-256 of the names and contents of all Python files of this package."""
    root = Path(wuerstchen.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text, such as a resolved config; empty for an empty text."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def read_phases(folder: Path) -> list[Phase]:
    """All phases of a folder, ordered by start, including running and killed ones."""
    # If two lines end a phase, the first is its own; the second is by a reader that raced with it.
    ended = reversed(list(_ended_phases(folder)))
    found = {phase.id: phase for phase in (*_open_phases(folder), *ended)}
    return sorted(found.values(), key=lambda phase: phase.started)


def append_phases(folder: Path, phases: Sequence[Phase]) -> None:
    """Append phases to the ledger and sync it to disk. Raises SaveError."""
    path = folder / LEDGER
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            text = "".join(phase.model_dump_json(by_alias=True) + "\n" for phase in phases)
            file.write(("\n" if _is_truncated(path) else "").encode() + text.encode())
            file.flush()
            os.fsync(file.fileno())


def adopt_phases(source: Path, folder: Path) -> None:
    """Copy the phases of a prepared set to the ledger of a model that is trained on it.

    Phases that are already there are not copied again; a source without a ledger adds nothing.
    """
    known = {phase.id for phase in read_phases(folder)}
    if new := [phase for phase in _ended_phases(source) if phase.id not in known]:
        append_phases(folder, new)


def save_open(folder: Path, phase: Phase) -> None:
    write_file(folder / OPEN / f"{phase.id}.json", phase.model_dump_json(by_alias=True).encode())


def close_phase(folder: Path, phase: Phase) -> None:
    """Move an ended phase to the ledger; wherever a kill interrupts this, it is read only once."""
    append_phases(folder, [phase])
    (folder / OPEN / f"{phase.id}.json").unlink(missing_ok=True)


def close_killed(folder: Path) -> None:
    """Move phases whose process was killed to the ledger."""
    for phase in _open_phases(folder):
        if phase.end == "killed":
            close_phase(folder, phase)
            (folder / OPEN / f"{phase.id}.lock").unlink(missing_ok=True)
    for lock in (folder / OPEN).glob("*.lock"):  # of processes killed before they wrote anything
        if not lock.with_suffix(".json").exists() and not _is_held(lock):
            lock.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Lock the phase `name`, which shows other processes that it is running."""
    path = folder / OPEN / f"{name}.lock"
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _ended_phases(folder: Path) -> Iterator[Phase]:
    with suppress(FileNotFoundError):
        for line in (folder / LEDGER).read_bytes().splitlines():
            with suppress(ValidationError):
                yield Phase.model_validate_json(line)


def _open_phases(folder: Path) -> Iterator[Phase]:
    for path in sorted((folder / OPEN).glob("*.json")):
        try:
            phase = Phase.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):  # just closed, or not a phase
            continue
        yield phase if _is_held(path) else phase.model_copy(update={"end": "killed"})


def _is_held(path: Path) -> bool:
    lock = path.with_suffix(".lock")
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a read-only folder, or no locks
        return False


def _is_truncated(path: Path) -> bool:
    """Whether the last line lacks a line end, so that a new one must be started."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
