"""`wuerstchen prepare`: a source becomes shards with an index; over all cores and processes.

units ─▶ parts, one a unit, in any order and by any process ─▶ finish: copies, splits, shards, index

A part that is whole is not made again, so the same command goes on where it stopped.
"""

import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image
from pydantic import BaseModel, ValidationError

from wuerstchen.aside import explained, write_file
from wuerstchen.config import PrepareConfig
from wuerstchen.data.images import parse_colour
from wuerstchen.data.index import read_info
from wuerstchen.data.sources import PREPARED, is_prepared
from wuerstchen.errors import DataError
from wuerstchen.prepare.finish import PARTS, finish
from wuerstchen.prepare.shards import part_of, write_part
from wuerstchen.prepare.units import Unit, digest_of, units_of
from wuerstchen.receipts import Meter, keep_receipts

WAIT = 1.0
"""Seconds between two looks at what the other processes have done."""

log = logging.getLogger(__name__)

Tell = Callable[[int, int], None]
"""(pictures more, units in all), as the work goes on; 0 more: a unit is done."""


class Begun(BaseModel):
    """The file parts/begun.json: what an unfinished folder is being made of."""

    source: str
    settings: dict[str, object]


def prepare(
    source: str,
    out: Path,
    config: PrepareConfig,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    tell: Tell = lambda more, of: None,
) -> Path:
    """Make a prepared set of `source` in the folder `out`; returns that folder.

    rank, world  of this process among those that share the work; the first one finishes it
    workers      threads; as many as there are cores when None

    Raises DataError for a source that cannot be used or changed under way, for a folder that holds
    something else or is of other settings; SaveError where nothing can be written.
    """
    parse_colour(config.background)
    settings = config.model_dump(mode="json")
    if is_prepared(out):
        _leave(out, source, config)
        if rank == 0:
            shutil.rmtree(out / PARTS, ignore_errors=True)  # where a kill came before it could go
        return out
    _check_apart(source, out)
    units, skipped = units_of(source, config.shard)
    with ExitStack() as held:
        if rank == 0:
            _begin(out, source, settings, held)
        elif not _follow(out, source, settings):
            return out
        text = json.dumps(settings, sort_keys=True)
        with Meter(
            out,
            stage="data",
            kind="preparation",
            devices=world,
            writes=rank == 0,
            config=text,
            data=digest_of(units),
        ) as meter:
            told = _metered(tell, meter)
            _make_parts(units[rank::world], config, out / PARTS, len(units), workers, told)
            if rank == 0:
                _wait_for_others(units, out / PARTS)
                finish(source, out, config, units, skipped)
                shutil.rmtree(out / PARTS)
        if rank == 0:
            keep_receipts(out)
    return out


def _leave(out: Path, source: str, config: PrepareConfig) -> None:
    """A set that is there already: of the same source and settings it is good as it is."""
    info = read_info(out)
    _check_source(out / PREPARED, info.source, source)
    _check_same(out / PREPARED, info.settings, config.model_dump(mode="json"))
    log.info("%s is prepared already; delete the folder to prepare it anew.", out)
    with suppress(DataError):  # a source that is gone by now leaves the set as good as it was
        units, _ = units_of(source, config.shard)
        if info.source_digest and digest_of(units) != info.source_digest:
            log.warning("%s has changed since %s was prepared of it.", source, out)


def _check_apart(source: str, out: Path) -> None:
    """Raise DataError where the set would lie among the pictures that it is made of."""
    root = Path(source).expanduser()
    if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{out}: expected a folder outside {source}, where a second look would find the "
            "pictures of the first; name another one."
        )


def _metered(tell: Tell, meter: Meter) -> Tell:
    """`tell`, also to the receipt; of several processes it counts its own pictures alone."""

    def both(more: int, of: int) -> None:
        meter.tick(more)
        if not more:  # a part is whole, and never made again
            meter.stands()
        tell(more, of)

    return both


def _begin(out: Path, source: str, settings: dict[str, object], held: ExitStack) -> None:
    """Take the folder, or take it up again where it was begun with the same settings."""
    parts = out / PARTS
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder or nothing, found a file; name another one.")
    if out.exists() and not parts.is_dir() and any(out.iterdir()):
        raise DataError(
            f"{out}: expected a new folder, or one that `wuerstchen prepare` began, found other "
            "files; name another one."
        )
    with explained(out):
        parts.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(parts / "lock", blocking=False))
    except Timeout:
        raise DataError(
            f"{out}: another process is preparing it; wait for it, or name another folder."
        ) from None
    begun = parts / "begun.json"
    if begun.is_file():
        _check_begun(begun, source, settings)
    write_file(begun, Begun(source=source, settings=settings).model_dump_json().encode())


def _follow(out: Path, source: str, settings: dict[str, object]) -> bool:
    """Wait until the first process has taken the folder; False where it is done with it already."""
    begun = out / PARTS / "begun.json"
    while not begun.is_file():
        if is_prepared(out):
            return False
        time.sleep(WAIT)
    _check_begun(begun, source, settings)
    return True


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


def _make_parts(
    units: Sequence[Unit],
    config: PrepareConfig,
    parts: Path,
    count: int,
    workers: int | None,
    tell: Tell,
) -> None:
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool, warnings.catch_warnings():
        # Pillow only warns between its limit and twice its limit; both are over the limit here.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for unit in units:
            if part_of(parts, unit) is None:
                write_part(unit, config, parts, pool, lambda more: tell(more, count))
            tell(0, count)


def _wait_for_others(units: Sequence[Unit], parts: Path) -> None:
    """Until every part is whole. A process that is lost ends this one too, by its launcher."""
    told = 0
    while missing := sum(part_of(parts, unit) is None for unit in units):
        if missing != told:
            log.info("Waiting for %d of %d shards of other processes.", missing, len(units))
        told = missing
        time.sleep(WAIT)
