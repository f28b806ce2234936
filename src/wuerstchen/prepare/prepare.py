"""`wuerstchen prepare`: turn a source into a prepared set, with all cores and processes.

work units ─▶ one part each, in any order and by any process ─▶ assembly of the set

Complete parts are not made again, so the same command resumes an interrupted run.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from wuerstchen.config import PrepareConfig
from wuerstchen.data.colours import parse_colour
from wuerstchen.data.images import pillow_warnings
from wuerstchen.data.sources import is_prepared
from wuerstchen.errors import DataError
from wuerstchen.prepare import claim
from wuerstchen.prepare.assembly import PARTS, assemble
from wuerstchen.prepare.parts import read_part, write_part
from wuerstchen.prepare.work_units import WorkUnit, digest_of, work_units
from wuerstchen.receipts import Meter, update_receipts

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with (new images, work units in total); 0 new images: a unit is done."""


def prepare(
    source: str,
    out: Path,
    config: PrepareConfig,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    on_progress: OnProgress = lambda images, units: None,
) -> Path:
    """Write a prepared set of `source` into the folder `out`; returns that folder.

    rank, world  of this process among those that share the work; rank 0 assembles the set
    workers      threads; None: one per core

    Raises DataError if the source is unusable, or `out` has other contents or other settings;
    SaveError if nothing can be written.
    """
    parse_colour(config.background)
    if not source.strip():
        raise DataError("The source is empty; set it to a folder of images or webdataset tars.")
    settings = config.model_dump(mode="json")
    if is_prepared(out):
        claim.check_finished(out, source, config)
        if rank == 0:
            claim.remove_parts(out)  # of a run killed just before the end
        return out
    claim.check_outside(source, out)
    units, skipped = work_units(source, config)
    with ExitStack() as held:
        others = [unit for number, unit in enumerate(units) if number % world != rank]
        if rank == 0:
            others = [unit for unit in others if read_part(out / PARTS, unit) is None]
            claim.claim_folder(out, source, settings, held)
        elif not claim.wait_for_claim(out, source, settings):
            return out
        with Meter(
            out,
            stage="data",
            kind="preparation",
            devices=world,
            writes=rank == 0,
            config=json.dumps(settings, sort_keys=True),
            data=digest_of(units),
        ) as meter:

            def progress(images: int) -> None:
                meter.tick(images)  # images of other processes are added at the end
                if not images:  # a part is complete, and is never made again
                    meter.mark_saved()
                on_progress(images, len(units))

            _make_parts(units[rank::world], config, out / PARTS, workers, progress)
            if rank == 0:
                _wait_for_others(units, out / PARTS)
                others_parts = [read_part(out / PARTS, unit) for unit in others]
                meter.tick(sum(part.found for part in others_parts if part is not None))
                meter.mark_saved()
                assemble(source, out, config, units, skipped)
                claim.remove_parts(out)
        if rank == 0:
            update_receipts(out)
    return out


def _make_parts(
    units: Sequence[WorkUnit],
    config: PrepareConfig,
    parts: Path,
    workers: int | None,
    on_progress: Callable[[int], None],
) -> None:
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool, pillow_warnings():
        for unit in units:
            if read_part(parts, unit) is None:
                write_part(unit, config, parts, pool, on_progress)
            on_progress(0)


def _wait_for_others(units: Sequence[WorkUnit], parts: Path) -> None:
    """Wait until every part is complete. If a process dies, the launcher ends this one too."""
    logged = 0
    while missing := sum(read_part(parts, unit) is None for unit in units):
        if missing != logged:
            log.info("Waiting for %d of %d shards from other processes.", missing, len(units))
        logged = missing
        time.sleep(claim.POLL_SECONDS)
