"""Divide a source into work units: each tar, or a number of images, becomes one shard."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow.compute as pc

from wuerstchen.config import PrepareConfig
from wuerstchen.data.items import Item
from wuerstchen.data.prepared import SHARDS, Index, open_index
from wuerstchen.data.report import Report, escape_non_utf8
from wuerstchen.data.sources import find_source, is_prepared
from wuerstchen.data.tars import read_tar


class WorkUnit(NamedTuple):
    """A piece of the source that becomes one shard."""

    name: str
    """00000, 00001 and so on, in the order of the source."""
    source: str
    """Path of the tar, or key of the first item."""
    digest: str
    """Of names, sizes, modification times and captions: changes when the source does."""
    read: Callable[[Report], list[Item]]
    """Returns the items and adds what is skipped to the report."""


def work_units(path: str, config: PrepareConfig) -> tuple[list[WorkUnit], Report]:
    """The work units of a source or a prepared set, and a report of what was skipped so far.

    Raises DataError if nothing is there or nothing is recognised.
    """
    folder = Path(os.path.expanduser(path))
    if is_prepared(folder):
        return _of_prepared(folder, path)
    source = find_source(path)
    if source.kind == "tars":
        tars = enumerate(source.files)
        per_line = config.caption_per_line
        return [_of_tar(n, source.root, tar, per_line) for n, tar in tars], source.report
    items = source.items(caption_per_line=config.caption_per_line)
    starts = range(0, len(items), config.shard_size)
    chunks = enumerate(items[start : start + config.shard_size] for start in starts)
    return [_of_items(n, chunk) for n, chunk in chunks], source.report


def digest_of(units: Sequence[WorkUnit]) -> str:
    """Digest of the whole source."""
    return _digest(unit.digest for unit in units)


def _of_tar(number: int, root: Path, tar: PurePosixPath, caption_per_line: bool) -> WorkUnit:
    name, source = f"{number:05d}", escape_non_utf8(str(tar))
    digest = _digest([str(tar), *_size_and_time(root / tar)])
    read = partial(read_tar, root, tar, caption_per_line=caption_per_line)
    return WorkUnit(name, source, digest, read)


def _of_prepared(folder: Path, path: str) -> tuple[list[WorkUnit], Report]:
    """The shards of a prepared set, read by its index: splits, groups and captions are kept."""
    index, info = open_index(folder)
    units = []
    for number, (shard, size) in enumerate(sorted(info.shards.items())):
        digest = _digest([info.index_sha256, shard, str(size)])
        read = partial(_read_prepared, index, shard)
        units.append(WorkUnit(f"{number:05d}", shard, digest, read))
    return units, Report(path, f"prepared set of {info.images} images")


def _read_prepared(index: Index, shard: str, report: Report) -> list[Item]:
    """Items of one shard: metadata fields from the tar, everything else from the index."""
    fields = {
        item.image.offset: item.fields
        for item in read_tar(index.folder / SHARDS, PurePosixPath(shard), report)
        if item.image is not None
    }
    rows = Index(index.folder, index.table.filter(pc.equal(index.table.column("shard"), shard)))
    splits, offsets = (rows.table.column(name).to_pylist() for name in ("split", "offset"))
    return [
        Item(p.key, p.file, list(p.captions), fields.get(offset, {}), split, p.group)
        for p, split, offset in zip(rows, splits, offsets, strict=True)
    ]


def _of_items(number: int, items: Sequence[Item]) -> WorkUnit:
    def contents() -> Iterable[str]:
        for item in items:
            yield from (item.key, repr(item.captions), repr(item.fields), repr(item.split))
            if item.image is not None:
                yield from _size_and_time(item.image.path)

    return WorkUnit(f"{number:05d}", items[0].key, _digest(contents()), lambda report: list(items))


def _size_and_time(path: Path) -> tuple[str, str]:
    """Empty for a file that cannot be read: it is dropped later, when its unit is processed."""
    try:
        found = path.stat()
    except OSError:
        return "", ""
    return str(found.st_size), str(found.st_mtime_ns)


def _digest(contents: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(contents).encode("utf-8", "surrogatepass")).hexdigest()[:16]
