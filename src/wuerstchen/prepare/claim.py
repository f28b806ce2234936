"""The folder of a prepared set is taken, taken up again, or left as it is: nothing is mixed in it.

OUT/parts/begun.json    what an unfinished folder is being made of
OUT/parts/lock          held by the process that takes and finishes it
"""

import logging
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.config import PrepareConfig
from wuerstchen.data.prepared import SHARDS, open_index
from wuerstchen.data.sources import PREPARED, is_prepared, pattern_matches
from wuerstchen.errors import DataError
from wuerstchen.prepare.finish import PARTS
from wuerstchen.prepare.work_units import digest_of, units_of

WAIT = 1.0
"""Seconds between two looks at what the other processes have done."""

log = logging.getLogger(__name__)


class Begun(BaseModel):
    """The file parts/begun.json: what an unfinished folder is being made of."""

    source: str
    settings: dict[str, object]


def begin(out: Path, source: str, settings: dict[str, object], held: ExitStack) -> None:
    """Take the folder, or take it up again where it was begun with the same settings."""
    parts = out / PARTS
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder or nothing, found a file; name another one.")
    if out.exists() and not parts.is_dir() and any(out.iterdir()):
        raise DataError(
            f"{out}: expected a new folder, or one that `wuerstchen prepare` began, found other "
            "files; name another one."
        )
    with explain_disk_errors(out):
        parts.mkdir(parents=True, exist_ok=True)
    with explain_disk_errors(parts / "lock"):
        try:
            held.enter_context(FileLock(parts / "lock", blocking=False))
        except Timeout:  # which is an OSError, too
            raise DataError(
                f"{out}: another process is preparing it; wait for it, or name another folder."
            ) from None
    begun = parts / "begun.json"
    if begun.is_file():
        _check_begun(begun, source, settings)
    write_file(begun, Begun(source=source, settings=settings).model_dump_json().encode())


def follow(out: Path, source: str, settings: dict[str, object]) -> bool:
    """Wait until the first process has taken the folder; False where it is done with it already."""
    begun = out / PARTS / "begun.json"
    while not begun.is_file():
        if is_prepared(out):
            return False
        time.sleep(WAIT)
    _check_begun(begun, source, settings)
    return True


def leave(out: Path, source: str, config: PrepareConfig) -> None:
    """A set that is there already: of the same source and settings it is good as it is.

    Raises DataError where it is damaged, too.
    """
    _, info = open_index(out)
    _check_source(out / PREPARED, info.source, source)
    _check_same(out / PREPARED, info.settings, config.model_dump(mode="json"))
    log.info("%s is prepared already; delete the folder to prepare it anew.", out)
    with suppress(DataError):  # a source that is gone by now leaves the set as good as it was
        units, _ = units_of(source, config.shard_size)
        if info.source_digest and digest_of(units) != info.source_digest:
            log.warning("%s has changed since %s was prepared of it.", source, out)


def check_apart(source: str, out: Path) -> None:
    """Raise DataError where the set would lie among the images that it is made of."""
    root = Path(source).expanduser()
    inside = root.is_dir() and out.resolve().is_relative_to(root.resolve())
    if inside or pattern_matches(str(root), out / SHARDS / "00000.tar"):
        raise DataError(
            f"{out}: expected a folder outside of {source}, where a second look would find the "
            "images of the new set, too; name another one."
        )


def _check_begun(path: Path, source: str, settings: dict[str, object]) -> None:
    before = _read_begun(path)
    _check_source(path, before.source, source)
    _check_same(path, before.settings, settings)


def _read_begun(path: Path) -> Begun:
    try:
        return Begun.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(
            f"{path}: expected what an earlier run wrote, found something else; delete "
            f"{path.parent.parent} to begin anew."
        ) from None


def _check_source(path: Path, before: str, now: str) -> None:
    """Raise DataError unless both name the same place."""
    if before != now and Path(before).resolve() != Path(now).resolve():
        raise DataError(
            f"{path}: expected the source {before} that it was begun with, found {now}; name that "
            "one, or another folder for the new set."
        )


def _check_same(path: Path, before: dict[str, object], now: dict[str, object]) -> None:
    """Raise DataError that names the first key which is another one than before."""
    flat_before, flat_now = _flat(before), _flat(now)
    for key in flat_before | flat_now:
        if flat_before.get(key) != flat_now.get(key):
            raise DataError(
                f"{path}: expected {key}={flat_before.get(key)} as it was begun with, found "
                f"{key}={flat_now.get(key)}; set it back, name another folder, or delete this one."
            )


def _flat(values: dict[str, object], head: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        inner = _flat(value, f"{head}{key}.") if isinstance(value, dict) else {head + key: value}
        found |= inner
    return found
