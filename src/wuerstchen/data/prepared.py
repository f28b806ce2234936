"""Files of a prepared set, and its index: a Parquet table with one row per image.

OUT/prepared.json      settings, counts, and every shard with its size in bytes
OUT/index.parquet      the rows
OUT/shards/00000.tar   KEY.jpg, KEY.txt and KEY.json, as other webdataset readers expect them
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from wuerstchen.config.section import RENAMED
from wuerstchen.data.items import ByteRange, Split
from wuerstchen.data.pairs import Pair
from wuerstchen.data.sources import PREPARED
from wuerstchen.data.tar_members import BLOCK
from wuerstchen.errors import DataError
from wuerstchen.parsing import parse_model, read_bytes

INDEX, SHARDS = "index.parquet", "shards"

_CACHED_ROWS = 8192
"""Rows that are kept as pairs: enough for the batches in progress."""

SCORES = ("aesthetic", "pwatermark", "punsafe", "similarity")

PERCEPTUAL_HASH = "look"
"""Column of the perceptual hash."""

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "group", "split", "shard")]
    + [(name, pa.int64()) for name in ("offset", "bytes")]
    + [(name, pa.int32()) for name in ("width", "height", "source_width", "source_height")]
    + [("captions", pa.list_(pa.string()))]
    + [(name, pa.float32()) for name in SCORES]
    + [("hash", pa.string()), (PERCEPTUAL_HASH, pa.uint64())]
)
"""hash: SHA-256 of the stored image."""

_PAIR_COLUMNS = ("key", "captions", "group", "shard", "offset", "bytes", "hash")

_NEW_NAMES = dict(RENAMED)


def _update(settings: object) -> object:
    """Current names, and what was not yet a setting: every line of a text was a caption."""
    renamed = _rename_keys(settings)
    return {"caption_per_line": True} | renamed if isinstance(renamed, dict) else renamed


def _rename_keys(settings: object) -> object:
    if not isinstance(settings, dict):
        return settings
    return {_NEW_NAMES.get(key, key): _rename_keys(value) for key, value in settings.items()}


Settings = Annotated[dict[str, object], BeforeValidator(_update)]
"""Values of `PrepareConfig`; keys in files of earlier versions get their current names."""


class PreparedInfo(BaseModel):
    """The file prepared.json."""

    model_config = ConfigDict(populate_by_name=True)

    version: Literal[1] = 1
    source: str
    source_digest: str = ""
    """Of the source when it was prepared; empty in sets from before it was stored."""
    settings: Settings
    images: int = Field(validation_alias="pictures", serialization_alias="pictures")
    train: int
    test: int
    index_sha256: str
    shards: dict[str, int]
    """Bytes of every shard."""


@final
class Index(Sequence[Pair]):
    """Rows of a prepared set as pairs, created when they are accessed."""

    def __init__(self, folder: Path, table: pa.Table) -> None:
        self.folder, self.table = folder, table
        self._columns = {name: table.column(name) for name in table.column_names}
        self._pair = lru_cache(maxsize=_CACHED_ROWS)(self._read)

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
        values = (self._columns[name][row].as_py() for name in _PAIR_COLUMNS)
        key, captions, group, shard, offset, size, sha256 = values
        file = ByteRange(self.folder / SHARDS / shard, offset, size, sha256)
        return Pair(key, tuple(captions), group, file)

    def keys(self) -> list[str]:
        return list(self._columns["key"].to_pylist())

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) widths and (N,) heights of the stored images."""
        return self._columns["width"].to_numpy(), self._columns["height"].to_numpy()

    def groups(self) -> np.ndarray:
        """(N,) group numbers, counted from 0."""
        codes = self._columns["group"].combine_chunks().dictionary_encode().indices
        return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)

    def of_split(self, split: Split) -> "Index":
        """The rows of one split, in the order of the set."""
        return Index(self.folder, self.table.filter(pa.compute.equal(self.table["split"], split)))

    def select(self, rows: Sequence[int]) -> "Index":
        """These rows, in this order."""
        return Index(self.folder, self.table.take(pa.array(rows, pa.int64())))


def open_index(folder: Path) -> tuple[Index, PreparedInfo]:
    """Read the index and prepared.json of a set.

    Raises DataError if the index or the size of a shard is not the one that was written.
    """
    info = read_info(folder)
    path = folder / INDEX
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: expected the index of a prepared set, found: {error}; {_advice(folder)}."
        ) from None
    if hashlib.sha256(content).hexdigest() != info.index_sha256:
        raise DataError(
            f"{path}: expected the index that {PREPARED} was written with, found another one; "
            f"{_advice(folder)}."
        )
    for name, size in info.shards.items():
        if PurePosixPath(name).name != name:
            raise DataError(f"{folder / PREPARED}: expected names of shards, found {name!r}.")
        shard = folder / SHARDS / name
        found = shard.stat().st_size if shard.is_file() else None
        if found != size:
            raise DataError(
                f"{shard}: expected a shard of {size} bytes, found "
                f"{'nothing' if found is None else f'{found} bytes'}; {_advice(folder)}."
            )
    try:
        table = _read_table(content, info)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: expected rows of {info.images} images, found: {reason}; {_advice(folder)}."
        ) from None
    return Index(folder, table), info


def _read_table(content: bytes, info: PreparedInfo) -> pa.Table:
    """The index; ValueError for rows that are not of images in the shards."""
    file = pq.ParquetFile(pa.BufferReader(content))
    if file.metadata.num_rows != info.images or info.images * BLOCK > sum(info.shards.values()):
        raise ValueError(f"{file.metadata.num_rows} rows")  # before they take memory
    table = file.read(columns=SCHEMA.names).cast(SCHEMA)
    table.validate(full=True)  # UTF-8 too
    required = [name for name in SCHEMA.names if name not in SCORES]
    if missing := [name for name in required if table.column(name).null_count]:
        raise ValueError(f"rows without {missing[0]}")
    column = {name: table.column(name) for name in ("shard", "offset", "bytes")}
    names, sizes = pa.array(info.shards, pa.string()), pa.array(info.shards.values(), pa.int64())
    end = pc.take(sizes, pc.index_in(column["shard"], names))  # null for an unknown shard
    inside = pc.less_equal(pc.add_checked(column["offset"], column["bytes"]), end)
    positive = (pc.greater(table.column(name), 0) for name in ("bytes", "width", "height"))
    for right in (inside, pc.greater_equal(column["offset"], 0), *positive):
        if not pc.all(pc.fill_null(right, False)).as_py():
            raise ValueError("rows that lead to no image of a shard")
    if not pc.all(pc.greater(pc.list_value_length(table.column("captions")), 0)).as_py():
        raise ValueError("rows without a caption")
    return table


def read_info(folder: Path) -> PreparedInfo:
    path = folder / PREPARED
    try:
        return parse_model(PreparedInfo, read_bytes(path))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: expected a file written by `wuerstchen prepare`, found: {reason}; "
            f"{_advice(folder)}."
        ) from None


def _advice(folder: Path) -> str:
    """How to replace a damaged set."""
    return f"copy it again, or delete {folder} and run the same `wuerstchen prepare` again"
