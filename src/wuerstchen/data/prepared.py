"""The index of a prepared set: one row per image, in Parquet, with the shard that holds it.

OUT/prepared.json      what the set is: settings, counts, and every shard with its size in bytes
OUT/index.parquet      the rows
OUT/shards/00000.tar   KEY.jpg and KEY.json side by side, which other readers of webdataset take too
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, final, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from wuerstchen.data.items import Place, Split
from wuerstchen.data.pair import Pair
from wuerstchen.data.sources import PREPARED
from wuerstchen.errors import DataError

INDEX, SHARDS = "index.parquet", "shards"

KEPT = 8192
"""Rows that are kept as pairs: of the batches that are on their way."""

SCORES = ("aesthetic", "pwatermark", "punsafe", "similarity")

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("captions", pa.list_(pa.string())),
        *((name, pa.float32()) for name in SCORES),
        ("hash", pa.string()),
        ("look", pa.uint64()),
    ]
)
"""hash: SHA-256 of the stored image. look: its perceptual hash."""


class PreparedInfo(BaseModel):
    """The file prepared.json."""

    version: Literal[1] = 1
    source: str
    source_digest: str = ""
    """Of its files as they were then; empty in sets of before it was kept."""
    settings: dict[str, object]
    images: int
    train: int
    test: int
    index_sha256: str
    shards: dict[str, int]
    """Bytes of every shard."""


@final
class Index(Sequence[Pair]):
    """Rows of a prepared set as pairs, read from the table when they are asked for."""

    def __init__(self, folder: Path, table: pa.Table) -> None:
        self.folder, self.table = folder, table
        self._columns = {name: table.column(name) for name in table.column_names}
        self._pair = lru_cache(maxsize=KEPT)(self._read)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, row: int) -> Pair: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Pair]: ...
    def __getitem__(self, row: int | slice) -> Pair | Sequence[Pair]:
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self._pair(row % len(self))

    def _read(self, row: int) -> Pair:
        def value(name: str) -> object:
            return self._columns[name][row].as_py()

        captions = value("captions")
        assert isinstance(captions, list)
        return Pair(
            key=str(value("key")),
            captions=tuple(captions),
            group=str(value("group")),
            place=Place(
                self.folder / SHARDS / str(value("shard")),
                int(str(value("offset"))),
                int(str(value("bytes"))),
                str(value("hash")),
            ),
        )

    def __iter__(self) -> Iterator[Pair]:
        return (self[row] for row in range(len(self)))

    def keys(self) -> list[str]:
        found: list[str] = self._columns["key"].to_pylist()
        return found

    def sizes(self) -> np.ndarray:
        """(N, 2) widths and heights of the stored images."""
        return np.stack([self._columns[name].to_numpy() for name in ("width", "height")], axis=1)

    def groups(self) -> np.ndarray:
        """(N,) numbers from 0 on, equal for the rows of one group."""
        codes = self._columns["group"].combine_chunks().dictionary_encode().indices
        return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)

    def only(self, split: Split) -> "Index":
        """The rows of one split, in the order of the set."""
        mask = pa.compute.equal(self.table.column("split"), split)
        return Index(self.folder, self.table.filter(mask))

    def taken(self, rows: Sequence[int]) -> "Index":
        """These rows, in this order."""
        return Index(self.folder, self.table.take(pa.array(rows, pa.int64())))


def open_index(folder: Path) -> tuple[Index, PreparedInfo]:
    """The index of a prepared set and what the set is.

    Raises DataError where the files do not belong together: a shard that is missing or has
    another size than when it was written, an index of another set.
    """
    info = read_info(folder)
    path = folder / INDEX
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: expected the index of a prepared set, found: {error}; {_mend(folder)}."
        ) from None
    if hashlib.sha256(content).hexdigest() != info.index_sha256:
        raise DataError(
            f"{path}: expected the index that {PREPARED} was written with, found another one; "
            f"{_mend(folder)}."
        )
    for name, size in info.shards.items():
        shard = folder / SHARDS / name
        found = shard.stat().st_size if shard.is_file() else None
        if found != size:
            raise DataError(
                f"{shard}: expected a shard of {size} bytes, found "
                f"{'nothing' if found is None else f'{found} bytes'}; {_mend(folder)}."
            )
    return Index(folder, pq.read_table(pa.BufferReader(content))), info


def read_info(folder: Path) -> PreparedInfo:
    path = folder / PREPARED
    try:
        return PreparedInfo.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: expected what `wuerstchen prepare` writes, found: {reason}; {_mend(folder)}."
        ) from None


def _mend(folder: Path) -> str:
    """What to do about a set that is damaged."""
    return f"copy it again, or delete {folder} and run the same `wuerstchen prepare` again"
