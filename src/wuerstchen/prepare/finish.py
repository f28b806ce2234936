"""All parts together: copies are dropped, splits drawn, shards put in place, the index written.

Everything here can be done again from the parts, which go only when prepared.json stands.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wuerstchen.atomic_write import explain_disk_errors, write_file
from wuerstchen.config import PrepareConfig
from wuerstchen.data.prepared import INDEX, SCHEMA, SHARDS, PreparedInfo
from wuerstchen.data.report import Report
from wuerstchen.data.sources import PREPARED
from wuerstchen.data.splits import assign_splits
from wuerstchen.errors import DataError
from wuerstchen.prepare.duplicates import clusters
from wuerstchen.prepare.images import SUFFIXES
from wuerstchen.prepare.report import Copy, Overlap, Summary, summarise
from wuerstchen.prepare.report_page import write_page
from wuerstchen.prepare.shards import Dropped, copy_rows, part_of, write_rows
from wuerstchen.prepare.work_units import Unit, digest_of

PARTS = "parts"

NEAR_BITS = PrepareConfig.model_fields["duplicate_distance"].default
"""Bits in which copies may differ where copies are only counted."""

log = logging.getLogger(__name__)


def finish(
    source: str, out: Path, config: PrepareConfig, units: Sequence[Unit], skipped: Report
) -> None:
    """Write index, shards, report and, last, prepared.json."""
    parts = out / PARTS
    dropped = [
        Dropped(key=name, reason=reason)
        for reason, names in skipped.skipped.items()
        for name in names
    ]
    fields: set[str] = set()
    for unit in units:
        part = part_of(parts, unit)
        assert part is not None, unit.name
        dropped += part.dropped
        fields.update(part.fields)
    rows = pa.concat_tables(pq.read_table(parts / f"{unit.name}.parquet") for unit in units)
    rows = _with_unique_keys(rows, units)
    copies = _copies(rows, config.duplicate_distance)
    kept = rows.filter(
        pa.array(np.isin(np.arange(len(rows)), [c.row for c in copies], invert=True))
    )
    if not len(kept):
        raise DataError(
            f"{source}: expected images that pass the filters, found none of "
            f"{len(dropped) + len(rows)}; {_most_frequent(dropped)}."
        )
    _check_sample_by(config.balance_by, fields, out)
    kept = _with_splits(kept, config)
    kept = _with_shards(out, kept, units, rows, SUFFIXES[config.format])
    content = write_rows(out / INDEX, kept.select(SCHEMA.names))
    overlap = _overlap(kept, config.duplicate_distance)
    summary = summarise(source, skipped.kind, kept, rows, copies, dropped, overlap)
    _warn(summary, out)
    write_file(out / "report.json", (summary.model_dump_json(indent=2) + "\n").encode())
    write_page(out / "report.html", summary, kept, rows, copies, dropped, out)
    _write_info(out, source, digest_of(units), config, kept, content)


def _with_unique_keys(rows: pa.Table, units: Sequence[Unit]) -> pa.Table:
    """Where several tars hold the same key, the tar's name goes in front."""
    counts = pc.value_counts(rows.column("key").combine_chunks())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(repeated):
        return rows
    names = {f"{unit.name}.tar": str(PurePosixPath(unit.what).with_suffix("")) for unit in units}
    again = set(repeated.to_pylist())
    keys, shards = rows.column("key").to_pylist(), rows.column("shard").to_pylist()
    groups = rows.column("group").to_pylist()
    new = [
        f"{names[shard]}/{key}" if key in again else key
        for key, shard in zip(keys, shards, strict=True)
    ]
    # A group that is the key itself goes along with it.
    grouped = [n if g == k else g for g, k, n in zip(groups, keys, new, strict=True)]
    rows = rows.set_column(rows.schema.get_field_index("key"), "key", pa.array(new))
    return rows.set_column(rows.schema.get_field_index("group"), "group", pa.array(grouped))


def _copies(rows: pa.Table, most: int | None) -> list[Copy]:
    """Rows that are copies of another one, which stays: one held out, else the largest, else the
    first."""
    if most is None or not len(rows):
        return []
    labels = _clusters(rows, most)
    sides = [
        rows.column(f"source_{side}").to_numpy().astype(np.int64) for side in ("width", "height")
    ]
    test = pc.equal(rows.column("split"), "test").to_numpy()
    order = np.lexsort((np.arange(len(rows)), -(sides[0] * sides[1]), ~test, labels))
    first: dict[int, int] = {}
    found = []
    for row in order.tolist():
        label = int(labels[row])
        if label not in first:
            first[label] = row
        else:
            crosses = bool(test[first[label]]) and not test[row]
            found.append(Copy(row=row, of=first[label], crosses=crosses))
    return sorted(found, key=lambda copy: copy.row)


def _clusters(rows: pa.Table, most: int) -> np.ndarray:
    """(N,) numbers, equal for rows that are copies."""
    tints = np.frombuffer(b"".join(rows.column("tint").to_pylist()), np.uint8)
    looks = rows.column("look").to_numpy().astype(np.uint64)
    return clusters(looks, tints.reshape(len(rows), -1), most)


def _overlap(kept: pa.Table, most: int | None) -> Overlap:
    """Copies of held-out images that stay among those to train with; none where copies are
    dropped that differ as much as those that are counted here."""
    test = pc.equal(kept.column("split"), "test").to_numpy()
    if (most is not None and most >= NEAR_BITS) or not test.any():
        return Overlap(0, 0)
    labels, hashes = _clusters(kept, NEAR_BITS), kept.column("hash").to_numpy()
    equal = ~test & np.isin(hashes, np.unique(hashes[test]))
    near = ~test & np.isin(labels, np.unique(labels[test])) & ~equal
    return Overlap(int(equal.sum()), int(near.sum()))


def _check_sample_by(name: str | None, fields: set[str], out: Path) -> None:
    if name is not None and name not in fields:
        raise DataError(
            f"balance_by: expected a side field of the images, found {name!r}; they have "
            f"{', '.join(sorted(fields)) or 'no side fields'}. Delete {out} and name one of these."
        )


def _warn(summary: Summary, out: Path) -> None:
    """Say what a training will suffer from."""
    left = summary.equal_across_splits + summary.near_across_splits
    if left:
        log.warning(
            "%d images to train with are copies of held-out ones; copies=%d leaves them out.",
            left,
            NEAR_BITS,
        )
    if not summary.train:
        log.warning("%s holds no image to train with: all %d are held out.", out, summary.test)


def _with_splits(rows: pa.Table, config: PrepareConfig) -> pa.Table:
    named = [name or None for name in rows.column("split").to_pylist()]
    splits = assign_splits(named, rows.column("group").to_pylist(), config.test_fraction)
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(splits))


def _with_shards(
    out: Path, kept: pa.Table, units: Sequence[Unit], rows: pa.Table, suffix: str
) -> pa.Table:
    """Put the tars in place: as they are, or without the images that turned out to be copies."""
    wanted = set(kept.column("shard").to_pylist())
    tables = []
    for unit in units:
        shard = f"{unit.name}.tar"
        here = kept.filter(pc.equal(kept.column("shard"), shard))
        source, target = out / PARTS / shard, out / SHARDS / shard
        if shard not in wanted:
            target.unlink(missing_ok=True)
            continue
        before = rows.filter(pc.equal(rows.column("shard"), shard))
        if len(here) == len(before):
            _link(source, target)
        else:
            place = {start: row for row, start in enumerate(before.column("offset").to_pylist())}
            numbers = [place[start] for start in here.column("offset").to_pylist()]
            starts = copy_rows(source, target, unit.name, numbers, suffix)
            column = here.schema.get_field_index("offset")
            here = here.set_column(column, "offset", pa.array(starts, pa.int64()))
        tables.append(here)
    return pa.concat_tables(tables)


def _link(source: Path, target: Path) -> None:
    """A second name of the file, or a copy where the disk has no such thing."""
    with explain_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.copyfile(source, aside)
            aside.replace(target)


def _write_info(
    out: Path, source: str, digest: str, config: PrepareConfig, kept: pa.Table, index: bytes
) -> None:
    names: Sequence[str] = sorted(set(kept.column("shard").to_pylist()))
    shards: Mapping[str, int] = {name: (out / SHARDS / name).stat().st_size for name in names}
    test = pc.sum(pc.equal(kept.column("split"), "test")).as_py() or 0
    info = PreparedInfo(
        source=source,
        source_digest=digest,
        settings=config.model_dump(mode="json"),
        images=len(kept),
        train=len(kept) - test,
        test=test,
        index_sha256=hashlib.sha256(index).hexdigest(),
        shards=dict(shards),
    )
    write_file(out / PREPARED, (info.model_dump_json(indent=2, by_alias=True) + "\n").encode())


def _most_frequent(dropped: Sequence[Dropped]) -> str:
    counts = Summary.count(each.reason for each in dropped)
    return ", ".join(f"{count} × {reason}" for reason, count in list(counts.items())[:3])
