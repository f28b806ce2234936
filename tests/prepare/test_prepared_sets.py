"""Damaged prepared sets: whatever was damaged or swapped is named before it does harm."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_data import write
from made_sources import rows, some

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import BatchLoader, open_pairs
from wuerstchen.errors import DataError, TrainingError
from wuerstchen.prepare.prepare import prepare


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    source = write(root / "source", some(12))
    config = PrepareConfig(size=128, shard_size=4, test_fraction=0.25, balance_by="name")
    return prepare(str(source), root / "out", config)


@pytest.fixture
def ready(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "set"))


def opened(folder: Path, **settings: object):
    return open_pairs(DataConfig(path=str(folder), **settings))


def test_groups_of_the_preparation_are_those_of_training(ready: Path) -> None:
    train, test, _ = opened(ready, balance_by="name")
    assert {pair.group for pair in train}.isdisjoint({pair.group for pair in test})
    assert len(set(train.groups.tolist())) == len({pair.group for pair in train}) > 1


def test_a_prepared_set_is_not_decoded_to_be_opened(ready: Path) -> None:
    first = rows(ready)[0]
    shard = ready / "shards" / str(first["shard"])
    data = bytearray(shard.read_bytes())
    start = int(str(first["offset"]))
    data[start : start + 40] = bytes(40)
    shard.write_bytes(data)
    train, test, _ = opened(ready)
    where = next((s, i) for s in (train, test) for i in range(len(s)) if s[i].key == first["key"])
    with pytest.raises(
        DataError, match=rf"{first['shard']}: expected image {first['key']} as .* damage"
    ):
        where[0].image(where[1])


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            lambda f: (f / "shards/00001.tar").unlink(),
            r"00001.tar: expected a shard of \d+ bytes, found nothing",
        ),
        (lambda f: _cut(f / "shards/00001.tar"), r"00001.tar: .* found \d+ bytes; copy it again"),
        (lambda f: _cut(f / "index.parquet"), "index.parquet: .* found another one"),
        (lambda f: (f / "index.parquet").unlink(), "index.parquet: expected the index"),
        (lambda f: (f / "prepared.json").write_text("{}"), "prepared.json: expected a file"),
    ],
)
def test_damage_is_named_when_the_set_is_opened(ready: Path, harm, sentence: str) -> None:
    harm(ready)
    with pytest.raises(DataError, match=sentence):
        opened(ready)


def test_a_set_for_smaller_images_or_other_groups_is_refused(ready: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.size=256, found a set that was prepared at size=128"
    ):
        opened(ready, size=256)
    with pytest.raises(DataError, match=r"expected data\.balance_by=name, .* found number"):
        opened(ready, balance_by="number")


def test_what_was_decided_when_a_set_was_prepared_is_not_set_again(ready: Path) -> None:
    for name, value, own in (("test_fraction", 0.1, "0.25"), ("background", "black", "white")):
        message = (
            rf"expected data\.{name}={own}, as the set was prepared, found {value}; remove data"
        )
        with pytest.raises(DataError, match=message):
            opened(ready, **{name: value})
    assert len(opened(ready, test_fraction=0.25, background="white")[0]) > 0
    default = DataConfig.model_fields["test_fraction"].default
    assert len(opened(ready, test_fraction=default)[0]) == len(opened(ready)[0])


def test_squares_are_no_set_for_shapes(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4, width=600, height=400))
    config = PrepareConfig(size=384, shape="square", duplicate_distance=None)
    out = prepare(str(source), tmp_path / "out", config)
    with pytest.raises(DataError, match=r"data\.buckets=true, found a set .* shape=square"):
        opened(out, size=384, buckets=True)
    assert len(opened(out, size=256, buckets=True)[0]) == 3, "where the square is the only shape"


def test_a_set_that_holds_nothing_out_is_prepared_again(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    out = prepare(str(source), tmp_path / "out", PrepareConfig(size=128, test_fraction=0))
    with pytest.raises(
        TrainingError, match=r"found none; prepare the source again .*test_fraction="
    ):
        BatchLoader(opened(out)[1], 2, 0)
    with pytest.raises(TrainingError, match=r"found none; add data, or change data\.test_fraction"):
        BatchLoader(opened(source, test_fraction=0)[1], 2, 0)


def test_a_set_can_be_moved(ready: Path, tmp_path: Path) -> None:
    moved = ready.rename(tmp_path / "elsewhere")
    assert len(opened(moved)[0]) > 0
    assert str(tmp_path.parent) not in json.dumps(rows(moved))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("offset", -1, "lead to no image"),
        ("offset", 2**62, "lead to no image"),
        ("bytes", 2**62, "lead to no image"),
        ("bytes", -1, "lead to no image"),
        ("width", 0, "lead to no image"),
        ("shard", "../../secret.tar", "lead to no image"),
        ("captions", [], "without a caption"),
        ("key", None, "rows without key"),
    ],
)
def test_rows_that_lie_are_found_when_the_set_is_opened(
    ready: Path, column: str, value: object, sentence: str
) -> None:
    """Also if the digest of the index was written by whoever wrote the rows."""
    table = pq.read_table(ready / "index.parquet")
    values = [value, *table.column(column).to_pylist()[1:]]
    at, kind = table.schema.get_field_index(column), table.schema.field(column).type
    pq.write_table(table.set_column(at, column, pa.array(values, kind)), ready / "index.parquet")
    _sign(ready)
    with pytest.raises(DataError, match=rf"index.parquet: expected rows of .* {sentence}"):
        opened(ready)


def test_an_index_of_other_bytes_or_of_too_many_rows_is_refused(ready: Path) -> None:
    table = pq.read_table(ready / "index.parquet")
    pq.write_table(pa.concat_tables([table] * 2), ready / "index.parquet")
    _sign(ready)
    with pytest.raises(DataError, match="24 rows"):
        opened(ready)
    (ready / "index.parquet").write_bytes(b"PAR1" + b"\xff" * 99 + b"PAR1")
    _sign(ready)
    with pytest.raises(DataError, match=r"index\.parquet: expected rows"):
        opened(ready)


def _sign(folder: Path) -> None:
    info = json.loads((folder / "prepared.json").read_text())
    index = (folder / "index.parquet").read_bytes()
    info["index_sha256"] = hashlib.sha256(index).hexdigest()
    (folder / "prepared.json").write_text(json.dumps(info))
