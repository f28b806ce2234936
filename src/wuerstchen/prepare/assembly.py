"""Assemble the prepared set from all parts: drop duplicates, assign splits, write shards and index.

Parts are deleted only after prepared.json is written, so an interrupted assembly can be repeated.
"""

import hashlib
import logging
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wuerstchen import owned
from wuerstchen.atomic_write import explain_disk_errors, temporary_file, write_file
from wuerstchen.config import PrepareConfig
from wuerstchen.data.prepared import INDEX, SCHEMA, SHARDS, PreparedInfo
from wuerstchen.data.report import Report
from wuerstchen.data.sources import PREPARED
from wuerstchen.data.splits import assign_splits
from wuerstchen.errors import DataError
from wuerstchen.prepare.duplicates import NEAR_BITS, count_overlap, find_duplicates
from wuerstchen.prepare.images import SUFFIXES
from wuerstchen.prepare.parts import copy_rows, dropped_items, read_part, write_rows
from wuerstchen.prepare.report import Summary, summarise
from wuerstchen.prepare.report_page import write_page
from wuerstchen.prepare.work_units import WorkUnit, digest_of

PARTS = "parts"

log = logging.getLogger(__name__)


def assemble(
    source: str, out: Path, config: PrepareConfig, units: Sequence[WorkUnit], skipped: Report
) -> None:
    """Write shards, index, reports and, last, prepared.json."""
    parts = out / PARTS
    dropped = dropped_items(skipped)
    fields: set[str] = set()
    ignored: defaultdict[str, list[str]] = defaultdict(list)
    left_out = Counter(skipped.left_out)
    for unit in units:
        part = read_part(parts, unit)
        assert part is not None, unit.name
        dropped += part.dropped
        fields.update(part.fields)
        left_out.update(part.left_out)
        for note, keys in part.ignored.items():
            ignored[note] += keys
    rows = pa.concat_tables(pq.read_table(parts / f"{unit.name}.parquet") for unit in units)
    rows = _with_unique_keys(rows, units)
    duplicates = find_duplicates(rows, config.duplicate_distance)
    repeated = [each.row for each in duplicates]
    kept = rows.filter(pa.array(np.isin(np.arange(len(rows)), repeated, invert=True)))
    if not len(kept):
        counts = Counter(item.reason for item in dropped).most_common(3)
        reasons = ", ".join(f"{count} × {reason}" for reason, count in counts)
        found = f"none of {len(dropped) + len(rows)}; {reasons}"
        raise DataError(f"{source}: expected images that pass the filters, found {found}.")
    name = config.balance_by
    if name is not None and name not in fields:
        raise DataError(
            f"balance_by: expected a metadata field of the images, found {name!r}; they have "
            f"{', '.join(sorted(fields)) or 'no metadata fields'}. Delete {out} and choose another."
        )
    named = [split or None for split in kept.column("split").to_pylist()]
    splits = assign_splits(named, kept.column("group").to_pylist(), config.test_fraction)
    kept = _with_column(kept, "split", pa.array(splits))
    kept = _with_shards(out, kept, units, rows, SUFFIXES[config.format])
    index = write_rows(out / INDEX, kept.select(SCHEMA.names))
    overlap = count_overlap(kept, config.duplicate_distance)
    summary = summarise(
        source, skipped.kind, kept, rows, duplicates, dropped, overlap, ignored, left_out
    )
    _warn(summary, out)
    write_file(out / "report.json", (summary.model_dump_json(indent=2) + "\n").encode())
    write_page(summary, kept, rows, duplicates, dropped, out)
    shards = sorted(set(kept.column("shard").to_pylist()))
    info = PreparedInfo(
        source=source,
        source_digest=digest_of(units),
        settings=config.model_dump(mode="json"),
        images=summary.kept,
        train=summary.train,
        test=summary.test,
        index_sha256=hashlib.sha256(index).hexdigest(),
        shards={name: (out / SHARDS / name).stat().st_size for name in shards},
    )
    write_file(out / PREPARED, (info.model_dump_json(indent=2, by_alias=True) + "\n").encode())


def _with_unique_keys(rows: pa.Table, units: Sequence[WorkUnit]) -> pa.Table:
    """Prefix keys that several tars hold with the tar's name."""
    keys, shards, groups = (rows.column(name).to_pylist() for name in ("key", "shard", "group"))
    counts = Counter(keys)
    if len(counts) == len(keys):
        return rows
    names = {f"{unit.name}.tar": str(PurePosixPath(unit.source).with_suffix("")) for unit in units}
    new = [
        f"{names[shard]}/{key}" if counts[key] > 1 else key
        for key, shard in zip(keys, shards, strict=True)
    ]
    # A group that is the key itself changes with it.
    grouped = [n if g == k else g for g, k, n in zip(groups, keys, new, strict=True)]
    return _with_column(_with_column(rows, "key", pa.array(new)), "group", pa.array(grouped))


def _with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, values)


def _warn(summary: Summary, out: Path) -> None:
    """Log what is a problem for training."""
    overlap = summary.equal_across_splits + summary.near_across_splits
    if overlap:
        log.warning(
            f"{overlap} training images are duplicates of held-out ones; "
            f"duplicate_distance={NEAR_BITS} drops them."
        )
    if not summary.train:
        log.warning("%s has no training images: all %d are held out.", out, summary.test)


def _with_shards(
    out: Path, kept: pa.Table, units: Sequence[WorkUnit], rows: pa.Table, suffix: str
) -> pa.Table:
    """Put the tars in place: unchanged, or rewritten without duplicates."""
    tables = []
    for unit in units:
        shard = f"{unit.name}.tar"
        source, target = out / PARTS / shard, out / SHARDS / shard
        after = kept.filter(pc.equal(kept.column("shard"), shard))
        if not len(after):
            owned.check_replaceable(target)
            target.unlink(missing_ok=True)
            continue
        before = rows.filter(pc.equal(rows.column("shard"), shard))
        if len(after) == len(before):
            _link(source, target)
        else:
            chosen = pc.index_in(after.column("offset"), before.column("offset")).to_pylist()
            offsets = copy_rows(source, target, unit.name, chosen, suffix)
            after = _with_column(after, "offset", pa.array(offsets, pa.int64()))
        tables.append(after)
    return pa.concat_tables(tables)


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy if the file system has none."""
    with explain_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        owned.check_replaceable(target)
        target.unlink(missing_ok=True)
        owned.record_file(target, source, read=False)
        try:
            os.link(source, target)
        except OSError:
            with temporary_file(target) as temporary:
                shutil.copyfile(source, temporary)
                owned.record_file(target, temporary, read=False)
                temporary.replace(target)
