"""Turn a work unit into a part: a tar of its images, their rows, and a list of dropped items.

OUT/parts/00000.tar      images that passed the filters
OUT/parts/00000.parquet  their rows
OUT/parts/00000.json     dropped items with reasons; written last, so that the part is complete
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from wuerstchen import owned
from wuerstchen.atomic_write import (
    explain_disk_errors,
    fsync_file,
    temporary_file,
    write_file,
)
from wuerstchen.config import PrepareConfig
from wuerstchen.data.items import ByteRange, Item
from wuerstchen.data.prepared import PERCEPTUAL_HASH, SCHEMA
from wuerstchen.data.report import Note, Report, escape_non_utf8
from wuerstchen.data.splits import group_of
from wuerstchen.parsing import parse_model, read_bytes
from wuerstchen.prepare.duplicates import CHROMA
from wuerstchen.prepare.images import SUFFIXES, StoredImage, process, scores_of, usable_captions
from wuerstchen.prepare.work_units import WorkUnit

_PART_SCHEMA = pa.schema([*SCHEMA, (CHROMA, pa.binary(32))])

_CHUNK = 256
"""Images that are processed together: limits how many are decoded but not yet written."""

Row = dict[str, object]


class DroppedItem(BaseModel):
    """An item that is not kept."""

    key: str
    reason: str
    path: str = ""
    """File of its image, if it has one."""
    offset: int = 0
    size: int = -1

    def image(self) -> ByteRange | None:
        return ByteRange(Path(self.path), self.offset, self.size) if self.path else None


class Part(BaseModel):
    """The JSON file of a complete part."""

    digest: str
    """Of the work unit."""
    found: int
    dropped: list[DroppedItem]
    fields: list[str]
    """Names of the metadata fields of its images."""
    ignored: dict[Note, list[str]] = {}
    """Keys of kept images, by what is not used of them."""
    left_out: dict[str, int] = {}
    """Files that are no data, by name or suffix."""
    sizes: dict[str, int]
    """Bytes of the tar and of the rows."""


def read_part(folder: Path, unit: WorkUnit) -> Part | None:
    """A complete part; None if it is missing or damaged, or the source has changed since."""
    try:
        part = parse_model(Part, read_bytes(folder / f"{unit.name}.json"))
        sizes = _file_sizes(folder, unit)
    except (OSError, ValueError):
        return None
    return part if (part.digest, part.sizes) == (unit.digest, sizes) else None


def _file_sizes(folder: Path, unit: WorkUnit) -> dict[str, int]:
    names = (f"{unit.name}.tar", f"{unit.name}.parquet")
    return {name: (folder / name).stat().st_size for name in names}


def write_part(
    unit: WorkUnit,
    config: PrepareConfig,
    folder: Path,
    pool: Executor,
    on_progress: Callable[[int], None],
) -> None:
    """Process a work unit and write its part; raises SaveError if the disk is full or read-only.

    on_progress  called with the number of items processed since the last call, never 0
    """
    report = Report(unit.source, "")
    items = unit.read(report)
    dropped = dropped_items(report)
    if dropped:
        on_progress(len(dropped))
    rows: list[Row] = []
    fields: set[str] = set()
    with _open_shard(folder / f"{unit.name}.tar") as shard:
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            results = pool.map(lambda item: process(item, config), chunk)
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, StoredImage):
                    name = _member_name(unit.name, len(rows))
                    row = _store(item, result, name, config, shard)
                    rows.append({"shard": f"{unit.name}.tar", **row})
                    for note in result.notes:
                        report.ignore(note, item.key)
                    fields.update(item.fields)
                else:
                    dropped.append(_drop(item, result))
            on_progress(len(chunk))
    write_rows(folder / f"{unit.name}.parquet", pa.Table.from_pylist(rows, schema=_PART_SCHEMA))
    part = Part(
        digest=unit.digest,
        found=len(rows) + len(dropped),
        dropped=dropped,
        fields=sorted(map(escape_non_utf8, fields)),
        ignored=report.ignored,
        left_out=report.left_out,
        sizes=_file_sizes(folder, unit),
    )
    write_file(folder / f"{unit.name}.json", part.model_dump_json().encode())


def write_rows(path: Path, table: pa.Table) -> bytes:
    """Write a table atomically; returns the bytes of the file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    write_file(path, content)
    return content


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file; returns the offset of its bytes."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    start = shard.offset + tarfile.BLOCKSIZE  # short names have a header of one block
    shard.addfile(header, io.BytesIO(data))
    return start


@contextmanager
def _open_shard(path: Path) -> Iterator[tarfile.TarFile]:
    """Write a tar atomically; raises SaveError if that fails."""
    with explain_disk_errors(path):
        owned.check_replaceable(path)
        with temporary_file(path) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as shard:
                yield shard
            fsync_file(temporary)
            owned.record_file(path, temporary, read=False)
            temporary.replace(path)


def copy_rows(source: Path, target: Path, unit: str, rows: Sequence[int], suffix: str) -> list[int]:
    """Copy the files of these rows of a part into a new tar; returns the offset of each image."""
    with tarfile.open(source, "r:") as archive, _open_shard(target) as shard:
        starts = []
        for row in rows:
            for ending in (suffix, ".txt", ".json"):
                name = f"{_member_name(unit, row)}{ending}"
                file = archive.extractfile(name)
                assert file is not None, name
                start = _add(shard, name, file.read())
                if ending == suffix:
                    starts.append(start)
        return starts


def _member_name(unit: str, row: int) -> str:
    """Name of a row's files, unique in the set; no dots, where webdataset readers split it."""
    return f"{unit}{row:06d}"


def _store(
    item: Item, stored: StoredImage, name: str, config: PrepareConfig, shard: tarfile.TarFile
) -> Row:
    """Add the files of an image to `shard`; returns its row without the shard."""
    captions = usable_captions(item.captions or [], config.filters)
    offset = _add(shard, f"{name}{SUFFIXES[config.format]}", stored.data)
    _add(shard, f"{name}.txt", "\n".join(captions).encode())
    fields = {**item.fields, "key": item.key}  # the key is that of the source
    if len(captions) > 1:  # the text alone would be one caption with line breaks
        fields["captions"] = captions
    metadata = json.dumps(fields, ensure_ascii=False, default=str)
    _add(shard, f"{name}.json", metadata.encode("utf-8", "replace"))
    return {
        "key": item.key,
        "group": group_of(item, config.balance_by),
        "split": item.split or "",
        "offset": offset,
        "bytes": len(stored.data),
        "captions": captions,
        **scores_of(item.fields),
        "width": stored.width,
        "height": stored.height,
        "source_width": stored.source_width,
        "source_height": stored.source_height,
        "hash": stored.hash,
        PERCEPTUAL_HASH: stored.perceptual_hash,
        CHROMA: stored.chroma,
    }


def dropped_items(report: Report) -> list[DroppedItem]:
    """What a report skipped."""
    skipped = report.skipped.items()
    return [DroppedItem(key=key, reason=reason) for reason, keys in skipped for key in keys]


def _drop(item: Item, reason: str) -> DroppedItem:
    if (file := item.image) is None:
        return DroppedItem(key=item.key, reason=reason)
    path = escape_non_utf8(str(file.path))
    return DroppedItem(key=item.key, reason=reason, path=path, offset=file.offset, size=file.size)
