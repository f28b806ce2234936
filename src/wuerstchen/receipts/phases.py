"""The ledger of a folder: one line of JSON for each phase of work that was done there.

FOLDER/runs/phases.jsonl    phases that ended; lines are only ever added
FOLDER/runs/open/ID.json    a phase under way, as it stood a few seconds ago
FOLDER/runs/open/ID.lock    held by its process, and let go by the system when that is killed

So a phase whose process was killed is known by its file without a lock, and nothing it cost is lost
but the last seconds. Lines that a kill or a full disk left half written are passed over.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.receipts.amounts import Amounts

Kind = Literal["preparation", "encoding", "training", "look", "evaluation"]

End = Literal["open", "done", "stopped", "killed"]
"""Under way; as it should; by an error or Ctrl-C; by the system, or with the machine."""

LEDGER = Path("runs", "phases.jsonl")
OPEN = Path("runs", "open")


class Phase(BaseModel):
    """One stretch of work of one program: from its start, or its resumption, to its end."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    stage: str
    """The run folder's name, such as `b-pretraining`; `data` for preparations; `model` for all."""
    kind: Kind
    started: str
    """Date and time in UTC, ISO 8601, so that they sort as text."""
    end: End
    error: str = ""
    """First line of what stopped it."""
    at: int | None = None
    """Images that were done already when it began: what earlier phases did beyond is lost.
    None where the work does not go on from what was done before."""
    standing: int | None = None
    """Its images whose work stands on the disk whatever came after; None where it is the end of
    the phase, or a later one, that tells."""
    devices: int
    device: str
    work: dict[Kind, Amounts]
    """What it used, the greater part under its own kind; training also looks."""
    energy: str
    """How its energy is known."""
    country: str
    grams_per_kwh: float
    """CO2 of the country's electricity."""
    code: str
    config: str
    data: str
    """SHA-256 of the package's sources, of the settings, and of what was read; or empty."""
    origin: str = ""
    """The model in which it was measured, where this one was merged or converted from that; empty
    where it was measured here, or came with a prepared set."""


def read_phases(folder: Path) -> list[Phase]:
    """All phases of a folder, the earliest first; those under way and killed ones included."""
    # Of two lines that end a phase the first is its own; the second was a look at it just before.
    ended = reversed(list(_ended_phases(folder)))
    found = {phase.id: phase for phase in (*_open_phases(folder), *ended)}
    return sorted(found.values(), key=lambda phase: phase.started)


def append_phases(folder: Path, phases: Sequence[Phase]) -> None:
    """Add phases to the ledger and see them safely on the disk; SaveError where that cannot be."""
    path = folder / LEDGER
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            text = "".join(phase.model_dump_json() + "\n" for phase in phases)
            file.write(("\n" if _ends_half(path) else "").encode() + text.encode())
            file.flush()
            os.fsync(file.fileno())


def adopt(source: Path, folder: Path) -> None:
    """Take over what a prepared set cost into the ledger of a model that is trained with it.

    Phases that are there already are not taken twice; a source without a ledger adds nothing.
    """
    known = {phase.id for phase in read_phases(folder)}
    new = [phase for phase in _ended_phases(source) if phase.id not in known]
    if new:
        append_phases(folder, new)


def keep_open(folder: Path, phase: Phase) -> None:
    """Write down how a phase under way stands."""
    write_file(folder / OPEN / f"{phase.id}.json", phase.model_dump_json().encode())


def close_phase(folder: Path, phase: Phase) -> None:
    """Move a phase that ended to the ledger; it is read once wherever a kill interrupts this."""
    append_phases(folder, [phase])
    (folder / OPEN / f"{phase.id}.json").unlink(missing_ok=True)


def close_killed(folder: Path) -> None:
    """Move phases whose process is gone to the ledger."""
    for phase in _open_phases(folder):
        if phase.end == "killed":
            close_phase(folder, phase)
            (folder / OPEN / f"{phase.id}.lock").unlink(missing_ok=True)
    for lock in (folder / OPEN).glob("*.lock"):  # of a process killed before it wrote anything
        if not lock.with_suffix(".json").exists() and not _is_held(lock):
            lock.unlink(missing_ok=True)


@contextmanager
def held(folder: Path, name: str) -> Iterator[None]:
    """Show other processes that the phase `name` is under way, until this one leaves or dies."""
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
        except (OSError, ValidationError):  # it was closed just now, or is none of ours
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
    except (OSError, NotImplementedError):  # a folder that may only be read, or without locks
        return False


def _ends_half(path: Path) -> bool:
    """Whether the last line has no end: the next one must not be glued to it."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
