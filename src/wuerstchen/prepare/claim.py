"""Claim the output folder, so that it holds the results of one source and one config only.

OUT/parts/begun.json    source and settings of an unfinished set
OUT/parts/lock          held by the process that claims the folder and assembles the set
"""

import logging
import re
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from wuerstchen import locks, marks, overlap, owned
from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.config import PrepareConfig
from wuerstchen.data.prepared import INDEX, SHARDS, Settings, open_index
from wuerstchen.data.sources import PREPARED, is_prepared, pattern_matches
from wuerstchen.errors import DataError
from wuerstchen.parsing import parse_model, read_bytes
from wuerstchen.prepare.assembly import PARTS
from wuerstchen.prepare.work_units import digest_of, work_units

POLL_SECONDS = 1.0
"""Interval of checking what other processes have done."""

_CLAIM = "begun.json"

_PART = r"\d{5,}\.(tar|parquet|json)|begun\.json"
_PART_FILE = re.compile(rf"{_PART}|\.({_PART})\.\w+|lock")
"""Names of the files of parts, temporary ones included."""

log = logging.getLogger(__name__)


class Claim(BaseModel):
    """The file parts/begun.json."""

    source: str
    settings: Settings


def claim_folder(out: Path, source: str, settings: dict[str, object], held: ExitStack) -> None:
    """Claim a new folder, or one of an interrupted run with the same source and settings.

    held  releases the lock
    """
    parts = out / PARTS
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder, found a file; choose another folder.")
    with explain_disk_errors(out):
        new, marked = owned.is_empty(out), marks.mark_of(out)
        if not (new or _is_begun(out) or (marked is not None and marked.kind == "prepared set")):
            raise DataError(
                f"{out}: expected a new folder, or one from an interrupted `wuerstchen prepare`, "
                "found other files; choose another folder."
            )
        mark = marks.make_mark(out, "prepared set")
        if marked is None:
            mark.adopt(out / name for name in (INDEX, "report.json", "report.html"))
            for shard in (out / SHARDS).glob("*.tar"):
                owned.record_file(shard, shard, read=False)
        parts.mkdir(parents=True, exist_ok=True)
        locks.check_lock(parts / "lock")
    with explain_disk_errors(parts / "lock"):
        try:
            held.enter_context(FileLock(parts / "lock", blocking=False))
        except Timeout:  # a subclass of OSError
            raise DataError(
                f"{out}: another process is preparing this folder; wait, or choose another one."
            ) from None
    claim = parts / _CLAIM
    if claim.is_file():
        _check_claim(claim, source, settings)
    write_file(claim, Claim(source=source, settings=settings).model_dump_json().encode())


def wait_for_claim(out: Path, source: str, settings: dict[str, object]) -> bool:
    """Wait until the first process has claimed the folder; False if the set is finished already."""
    claim = out / PARTS / _CLAIM
    while not claim.is_file():
        if is_prepared(out):
            return False
        time.sleep(POLL_SECONDS)
    _check_claim(claim, source, settings)
    return True


def check_finished(out: Path, source: str, config: PrepareConfig) -> None:
    """Raise DataError if a finished set is damaged, or has another source or other settings."""
    _, info = open_index(out)
    before = Claim(source=info.source, settings=info.settings)
    _check_same(out / PREPARED, before, source, config.model_dump(mode="json"))
    log.info("%s is already prepared; to prepare it again, delete the folder.", out)
    with suppress(DataError):  # the set is usable even if its source is gone
        units, _ = work_units(source, config)
        if info.source_digest and digest_of(units) != info.source_digest:
            log.warning("%s has changed since %s was prepared from it.", source, out)


def check_outside(source: str, out: Path) -> None:
    """Raise DataError if the set would be written into its own source."""
    root = Path(source).expanduser()
    inside = root.is_dir() and overlap.is_within(out, root)
    if inside or pattern_matches(str(root), out / SHARDS / "00000.tar"):
        raise DataError(
            f"{out}: expected a folder outside {source}, since the set would otherwise become "
            "part of its own source; choose another folder."
        )


def remove_parts(out: Path) -> None:
    """Delete the parts of a finished set; what else is among them stays."""
    parts = out / PARTS
    if parts.is_dir() and (_is_begun(out) or all(_is_part(each.name) for each in parts.iterdir())):
        # The claim last: without it a kill would leave them unknown.
        owned.remove_own(parts, lambda name: name != _CLAIM and _is_part(name))
        owned.remove_own(parts, _is_part)


def _is_part(name: str) -> bool:
    return _PART_FILE.fullmatch(name) is not None


def _is_begun(out: Path) -> bool:
    """Whether a folder is that of an interrupted run, also of a version that made no marks."""
    parts = out / PARTS
    if parts.is_symlink() or not parts.is_dir():
        return False
    with suppress(OSError, ValueError):
        parse_model(Claim, read_bytes(parts / _CLAIM))
        return True
    # A kill may leave only the lock.
    rest = [path for path in (*out.iterdir(), *parts.iterdir()) if path != parts]
    return all(path == parts / "lock" and path.stat().st_size == 0 for path in rest)


def _check_claim(path: Path, source: str, settings: dict[str, object]) -> None:
    try:
        claim = parse_model(Claim, read_bytes(path))
    except (OSError, ValueError):
        raise DataError(
            f"{path}: expected a file written by an earlier run, found something else; choose "
            "another folder, or delete this one if nothing else is in it."
        ) from None
    _check_same(path, claim, source, settings)


def _check_same(path: Path, before: Claim, source: str, settings: dict[str, object]) -> None:
    """Raise DataError for another source, or for the first key with another value."""
    if before.source != source and Path(before.source).resolve() != Path(source).resolve():
        raise DataError(
            f"{path}: expected the source {before.source} of the earlier run, found {source}; use "
            "that source, or choose another folder."
        )
    old, new = _flatten(before.settings), _flatten(settings)
    for key in old | new:
        if old.get(key) != new.get(key):
            raise DataError(
                f"{path}: expected {key}={old.get(key)}, as in the earlier run, found "
                f"{key}={new.get(key)}; set it back, choose another folder, or delete this one."
            )


def _flatten(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
