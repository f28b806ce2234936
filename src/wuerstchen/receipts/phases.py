"""The ledger of a folder: one line of JSON for each phase of work in it.

FOLDER/runs/phases.jsonl    ended phases, append-only
FOLDER/runs/open/ID.json    a running phase, at most a few seconds old
FOLDER/runs/open/ID.lock    locked by its process; the system releases it if that is killed

A phase whose process was killed therefore has a file but no lock, and only its last seconds are
lost. Lines that are not phases, such as truncated ones, are left out with a warning.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.errors import ModelFolderError, SaveError
from wuerstchen.locks import check_lock
from wuerstchen.parsing import parse_object, read_bytes
from wuerstchen.receipts.phase import End as End
from wuerstchen.receipts.phase import Kind as Kind
from wuerstchen.receipts.phase import Phase as Phase
from wuerstchen.receipts.phase import parse_phase

LEDGER = Path("runs", "phases.jsonl")
OPEN = Path("runs", "open")
FINISHED = "finished.json"
"""In the folder of a run that is finished, with the number of its images."""

NAMED = 3
"""Damaged lines and unknown keys that a warning names."""

LONGEST_LINE = 2**20
"""Bytes; a phase has one or two thousand."""


_START = b'{"id":'
"""Of each phase in a ledger."""

log = logging.getLogger(__name__)


def read_phases(folder: Path) -> list[Phase]:
    """All phases of a folder, including running and killed ones, those of a stage as they ran.

    Raises ModelFolderError if the ledger may not be read.
    """
    found: dict[str, Phase] = {}
    for phase in _ended_phases(folder):
        known = found.get(phase.id)
        # If two lines end a phase, a reader that took it for killed wrote one of them.
        if known is None or (known.end == "killed" and phase.end != "killed"):
            found[phase.id] = phase
    unrecorded = [phase for phase in _open_phases(folder) if phase.id not in found]
    unrecorded.sort(key=lambda phase: phase.end == "open")
    return _in_order([_with_results(folder, each) for each in (*found.values(), *unrecorded)])


def _in_order(phases: Sequence[Phase]) -> list[Phase]:
    """Ordered by start, but those of one stage as recorded: a clock may have been set back.

    A phase is recorded at its end, or by the next one if it was killed.
    """
    starts: list[str] = []
    latest: dict[tuple[str, str, str], str] = {}
    for phase in phases:
        same = (phase.origin, phase.stage, phase.kind)
        latest[same] = max(phase.started, latest.get(same, ""))
        starts.append(latest[same])
    return [phases[index] for index in sorted(range(len(phases)), key=starts.__getitem__)]


def append_phases(folder: Path, phases: Sequence[Phase]) -> None:
    """Append phases to the ledger and sync it to disk. Raises SaveError."""
    path = folder / LEDGER
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_ledger(path)
        with path.open("a+b") as file:
            text = "".join(phase.model_dump_json(by_alias=True) + "\n" for phase in phases)
            file.write(("\n" if _is_truncated(path) else "").encode() + text.encode())
            file.flush()
            os.fsync(file.fileno())


def _check_ledger(path: Path) -> None:
    """Refuse to append to a link, and to a file without a single phase."""
    with suppress(FileNotFoundError):
        if not path.is_symlink() and (not (content := path.read_bytes()) or _START in content):
            return
        raise SaveError(
            f"{path}: expected a ledger of phases, found something else; move it elsewhere."
        )


def adopt_phases(source: Path, folder: Path) -> None:
    """Copy the phases of a prepared set to the ledger of a model that is trained on it.

    Phases that are already there are not copied again; a source without a ledger adds nothing.
    """
    known = {phase.id for phase in read_phases(folder)}
    ended = [phase for phase in read_phases(source) if phase.end != "open"]
    if new := [phase for phase in ended if phase.id not in known]:
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
            close_phase(folder, _with_results(folder, phase))
            (folder / OPEN / f"{phase.id}.lock").unlink(missing_ok=True)
    for path in (folder / OPEN).glob(".*.json.*"):  # of processes killed while they wrote it
        name = path.name.removeprefix(".").partition(".json.")[0]
        if not _is_held(path.with_name(f"{name}.json")):
            path.unlink(missing_ok=True)
    for lock in (folder / OPEN).glob("*.lock"):  # of processes killed before they wrote anything
        if not lock.with_suffix(".json").exists() and not _is_held(lock):
            lock.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Lock the phase `name`, which shows other processes that it is running."""
    path = folder / OPEN / f"{name}.lock"
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_lock(path)
        lock = FileLock(path, blocking=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _ended_phases(folder: Path) -> Iterator[Phase]:
    """The lines of the ledger that are phases; others are named, and cost only themselves."""
    path = folder / LEDGER
    damaged, unknown = dict[int, str](), dict[str, None]()
    for number, line in enumerate(_lines(path), 1):
        try:
            phase, keys = parse_phase(line)
        except ValueError as error:
            if line.strip():
                damaged[number] = str(error)
            continue
        unknown |= dict.fromkeys(keys)
        yield phase if phase.end != "open" else phase.model_copy(update={"end": "killed"})
    if damaged:
        reasons = [f"line {number} ({reason})" for number, reason in damaged.items()]
        more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        left_out = "; ".join(reasons[:NAMED]) + more
        _warn_once(f"{path}: expected a phase of work on each line; left out: {left_out}.")
    if unknown:
        names = ", ".join([*unknown][:NAMED]) + (", …" if len(unknown) > NAMED else "")
        _warn_once(f"{path}: keys that this version does not know are not used: {names}.")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from iter(lambda: file.readline(LONGEST_LINE), b"")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ModelFolderError(
            f"{path}: expected a readable ledger, found: {error.strerror or error}; correct its "
            "permissions, or move it away."
        ) from None


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _open_phases(folder: Path) -> Iterator[Phase]:
    for path in sorted((folder / OPEN).glob("*.json")):
        try:
            phase, _ = parse_phase(path.read_bytes())
        except OSError:  # just closed
            continue
        except ValueError as error:
            _warn_once(f"{path}: expected a phase of work, found something else ({error}).")
            continue
        if phase.id != path.stem:
            _warn_once(f"{path}: expected the phase of this name, found {phase.id!r}.")
            continue
        yield phase if _is_held(path) else phase.model_copy(update={"end": "killed"})


def _with_results(folder: Path, phase: Phase) -> Phase:
    """Marks all images of a phase as saved if its run is finished, and ended with them."""
    if phase.end not in ("killed", "stopped") or phase.resumed_at is None or phase.origin:
        return phase
    try:
        path = folder / "runs" / phase.stage / FINISHED
        images = parse_object(read_bytes(path))["images"]
    except (OSError, ValueError, KeyError):
        return phase
    is_last = images == phase.resumed_at + phase.images
    return phase.model_copy(update={"saved": phase.images}) if is_last else phase


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
