"""A unit of the source becomes a part: a tar of its images, their rows, and what was dropped.

OUT/parts/00000.tar      images that passed the filters
OUT/parts/00000.parquet  their rows
OUT/parts/00000.json     what was dropped and why; written last, it says that the part is whole
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from wuerstchen.atomic_write import explain_disk_errors, fsync_file, write_file
from wuerstchen.config import PrepareConfig
from wuerstchen.data.items import ByteRange, Item
from wuerstchen.data.open import item_problem
from wuerstchen.data.prepared import SCHEMA
from wuerstchen.data.report import Report, escape_non_utf8
from wuerstchen.data.splits import group_of
from wuerstchen.prepare.filters import (
    scores_of,
    trouble_with_captions,
    trouble_with_scores,
    usable_captions,
)
from wuerstchen.prepare.images import SUFFIXES, Stored, store_image
from wuerstchen.prepare.work_units import Unit

PART_SCHEMA = pa.schema([*SCHEMA, ("tint", pa.binary(32))])

_CHUNK = 256
"""Images that are worked on together: bounds what is decoded but not yet written."""

Row = dict[str, object]


class Dropped(BaseModel):
    """An image that is not kept."""

    key: str
    reason: str
    path: str = ""
    """Where its bytes are, if anywhere."""
    offset: int = 0
    size: int = -1


class Part(BaseModel):
    """The file that says that a part is whole."""

    digest: str
    """Of the unit that it was made of."""
    found: int
    dropped: list[Dropped]
    fields: list[str]
    """Names of the side fields of its images."""
    sizes: dict[str, int]
    """Bytes of its tar and of its rows."""


def part_of(folder: Path, unit: Unit) -> Part | None:
    """What a finished part says; None where it is not there, not whole any more, or of another
    state of the source."""
    try:
        part = Part.model_validate_json((folder / f"{unit.name}.json").read_bytes())
        sizes = _sizes(folder, unit)
    except (OSError, ValidationError):
        return None
    return part if (part.digest, part.sizes) == (unit.digest, sizes) else None


def _sizes(folder: Path, unit: Unit) -> dict[str, int]:
    names = (f"{unit.name}.tar", f"{unit.name}.parquet")
    return {name: (folder / name).stat().st_size for name in names}


def write_part(
    unit: Unit, config: PrepareConfig, folder: Path, pool: Executor, tell: Callable[[int], None]
) -> None:
    """Read a unit, keep what passes, and write its part.

    tell  is told how many images more were looked at, never 0

    Raises SaveError where the disk is full or may not be written to.
    """
    report = Report(unit.what, "")
    items = unit.read(report)
    dropped = [
        Dropped(key=name, reason=reason)
        for reason, names in report.skipped.items()
        for name in names
    ]
    if dropped:
        tell(len(dropped))
    rows: list[Row] = []
    fields: set[str] = set()
    with open_shard(folder / f"{unit.name}.tar") as shard:
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            results = pool.map(lambda item: _judge(item, config), chunk)
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, Stored):
                    rows.append(_keep(item, result, unit, config, shard, len(rows)))
                    fields.update(item.fields)
                else:
                    dropped.append(_drop(item, result))
            tell(len(chunk))
    write_rows(folder / f"{unit.name}.parquet", pa.Table.from_pylist(rows, schema=PART_SCHEMA))
    part = Part(
        digest=unit.digest,
        found=len(rows) + len(dropped),
        dropped=dropped,
        fields=sorted(map(escape_non_utf8, fields)),
        sizes=_sizes(folder, unit),
    )
    write_file(folder / f"{unit.name}.json", part.model_dump_json().encode())


def write_rows(path: Path, table: pa.Table) -> bytes:
    """Write a table aside and rename it; returns the bytes of the file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    write_file(path, content)
    return content


@final
class Shard:
    """A tar that is being written, as webdataset reads it: files of one name belong together."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, name: str, data: bytes) -> int:
        """Add a file; returns where its bytes begin."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        start = self._archive.offset + tarfile.BLOCKSIZE  # short names have a header of one block
        self._archive.addfile(header, io.BytesIO(data))
        return start


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Write a tar aside and rename it; SaveError where that cannot be."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as archive:
                yield Shard(archive)
            fsync_file(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def member(unit: str, row: int) -> str:
    """Name of a row's files in their tar: unique in the whole set, and without any sign that
    readers of webdataset would take for the end of the name."""
    return f"{unit}{row:06d}"


def _judge(item: Item, config: PrepareConfig) -> Stored | str:
    """The image, ready to be stored, or why it is dropped. What costs least is asked first."""
    reason = item_problem(item)
    if reason is not None:
        return reason
    assert item.image is not None and item.captions
    return (
        trouble_with_captions(item.captions, config.filters)
        or trouble_with_scores(scores_of(item.fields), config.filters)
        or store_image(item.image, config)
    )


def _keep(
    item: Item, stored: Stored, unit: Unit, config: PrepareConfig, shard: Shard, row: int
) -> Row:
    captions = usable_captions(item.captions or [], config.filters)
    name = member(unit.name, row)
    place = shard.add(f"{name}{SUFFIXES[config.format]}", stored.data)
    shard.add(f"{name}.txt", "\n".join(captions).encode())
    shard.add(f"{name}.json", _side(item))
    return {
        "key": item.key,
        "group": group_of(item, config.balance_by),
        "split": item.split or "",
        "shard": f"{unit.name}.tar",
        "offset": place,
        "bytes": len(stored.data),
        "captions": captions,
        **scores_of(item.fields),
        **{k: v for k, v in stored._asdict().items() if k != "data"},
    }


def _side(item: Item) -> bytes:
    """The side fields, and the key that the source knows the image by."""
    fields: Mapping[str, object] = {**item.fields, "key": item.key}
    return json.dumps(fields, ensure_ascii=False, default=str).encode("utf-8", "replace")


def _drop(item: Item, reason: str) -> Dropped:
    place = item.image
    if place is None:
        return Dropped(key=item.key, reason=reason)
    return Dropped(
        key=item.key,
        reason=reason,
        path=escape_non_utf8(str(place.path)),
        offset=place.offset,
        size=place.size,
    )


def copy_rows(source: Path, target: Path, unit: str, rows: Sequence[int], suffix: str) -> list[int]:
    """Write the files of these rows of a part into a tar; returns where each image begins."""
    with tarfile.open(source, "r:") as archive, open_shard(target) as shard:

        def copy(name: str) -> int:
            found = archive.extractfile(name)
            assert found is not None, name
            return shard.add(name, found.read())

        starts = []
        for row in rows:
            name = member(unit, row)
            starts.append(copy(f"{name}{suffix}"))
            copy(f"{name}.txt")
            copy(f"{name}.json")
        return starts


def place_of(dropped: Dropped) -> ByteRange | None:
    """Where the bytes of a dropped image are."""
    return ByteRange(Path(dropped.path), dropped.offset, dropped.size) if dropped.path else None
