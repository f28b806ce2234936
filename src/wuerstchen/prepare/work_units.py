"""The pieces of work that a source is cut into: a tar, or a thousand images. Each is a shard."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow.compute as pc

from wuerstchen.data.items import Item
from wuerstchen.data.prepared import SHARDS, Index, open_index
from wuerstchen.data.report import Report, escape_non_utf8
from wuerstchen.data.sources import find_source, is_prepared
from wuerstchen.data.tars import read_tar


class Unit(NamedTuple):
    """What becomes one shard."""

    name: str
    """00000, 00001 and so on, in the order of the source."""
    what: str
    """A tar's path, or the first key."""
    digest: str
    """Changes where the source does: names, sizes and times of its files, and captions."""
    read: Callable[[Report], list[Item]]
    """Its items; what cannot be one goes into the report."""


def units_of(path: str, per_shard: int) -> tuple[list[Unit], Report]:
    """The pieces of a source or of a prepared set, and what was skipped on the way to them.

    Raises DataError where nothing is there or nothing is recognised.
    """
    folder = Path(path).expanduser()
    if is_prepared(folder):
        return _of_prepared(folder, path)
    source = find_source(path)
    if source.kind == "tars":
        tars = enumerate(source.files)
        return [_of_tar(n, source.root, tar) for n, tar in tars], source.report
    items = source.items()
    starts = range(0, len(items), per_shard)
    parts = enumerate(items[start : start + per_shard] for start in starts)
    return [_of_items(n, part) for n, part in parts], source.report


def digest_of(units: Sequence[Unit]) -> str:
    """Changes where anything of the source does."""
    return _digest(unit.digest for unit in units)


def _of_tar(number: int, root: Path, tar: PurePosixPath) -> Unit:
    digest = _digest([str(tar), *_stamp(root / tar)])
    return Unit(f"{number:05d}", escape_non_utf8(str(tar)), digest, partial(read_tar, root, tar))


def _of_prepared(folder: Path, path: str) -> tuple[list[Unit], Report]:
    """The shards of a prepared set, read by its index: splits, groups and captions stay."""
    index, info = open_index(folder)
    units = [
        Unit(
            f"{number:05d}",
            shard,
            _digest([info.index_sha256, shard, str(size)]),
            partial(_read_prepared, index, shard),
        )
        for number, (shard, size) in enumerate(sorted(info.shards.items()))
    ]
    return units, Report(path, f"prepared set of {info.images} images")


def _read_prepared(index: Index, shard: str, report: Report) -> list[Item]:
    """Items of one shard: side fields as they stand beside the images, all else of the index."""
    beside = {
        item.image.offset: item.fields
        for item in read_tar(index.folder / SHARDS, PurePosixPath(shard), report)
        if item.image is not None
    }
    rows = Index(index.folder, index.table.filter(pc.equal(index.table.column("shard"), shard)))
    splits = rows.table.column("split").to_pylist()
    return [
        Item(
            pair.key,
            pair.file,
            list(pair.captions),
            beside.get(pair.file.offset, {}),
            split,
            pair.group,
        )
        for pair, split in zip(rows, splits, strict=True)
    ]


def _of_items(number: int, items: Sequence[Item]) -> Unit:
    def words() -> Iterable[str]:
        for item in items:
            yield from (item.key, repr(item.captions), repr(item.fields), repr(item.split))
            if item.image is not None:
                yield from _stamp(item.image.path)

    return Unit(f"{number:05d}", items[0].key, _digest(words()), lambda report: list(items))


def _stamp(path: Path) -> tuple[str, str]:
    """Size and time; of what cannot be read nothing, as it is dropped when its turn comes."""
    try:
        found = path.stat()
    except OSError:
        return "", ""
    return str(found.st_size), str(found.st_mtime_ns)


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]
