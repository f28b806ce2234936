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
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from wuerstchen.config import PrepareConfig
from wuerstchen.data.colours import parse_colour
from wuerstchen.data.sources import is_prepared
from wuerstchen.errors import DataError
from wuerstchen.prepare.claim import WAIT, begin, check_apart, follow, leave
from wuerstchen.prepare.finish import PARTS, finish
from wuerstchen.prepare.shards import part_of, write_part
from wuerstchen.prepare.work_units import Unit, digest_of, units_of
from wuerstchen.receipts import Meter, update_receipts

log = logging.getLogger(__name__)

Tell = Callable[[int, int], None]
"""(images more, units in all), as the work goes on; 0 more: a unit is done."""


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
    if not source.strip():
        raise DataError(
            "The source is empty: expected a folder of images or webdataset tars, found no name; "
            "name what to prepare."
        )
    settings = config.model_dump(mode="json")
    if is_prepared(out):
        leave(out, source, config)
        if rank == 0:
            shutil.rmtree(out / PARTS, ignore_errors=True)  # where a kill came before it could go
        return out
    check_apart(source, out)
    units, skipped = units_of(source, config.shard_size)
    others = [unit for place, unit in enumerate(units) if place % world != rank]
    with ExitStack() as held:
        if rank == 0:
            stood = {unit.name for unit in others if part_of(out / PARTS, unit)}
            begin(out, source, settings, held)
        elif not follow(out, source, settings):
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
                looked_at = _found([unit for unit in others if unit.name not in stood], out / PARTS)
                meter.tick(looked_at)
                meter.mark_saved()
                finish(source, out, config, units, skipped)
                shutil.rmtree(out / PARTS)
        if rank == 0:
            update_receipts(out)
    return out


def _found(units: Sequence[Unit], parts: Path) -> int:
    """Images that were looked at in finished parts."""
    return sum(part.found for unit in units if (part := part_of(parts, unit)) is not None)


def _metered(tell: Tell, meter: Meter) -> Tell:
    """`tell`, also to the receipt; what other processes looked at is added when all are done."""

    def both(more: int, of: int) -> None:
        meter.tick(more)
        if not more:  # a part is whole, and never made again
            meter.mark_saved()
        tell(more, of)

    return both


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
