"""Laws of going on: what is damaged is made again, advice can be followed, receipts add up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_data import write, write_tar
from made_sources import rows, some

from wuerstchen.config import DataConfig, FilterConfig, PrepareConfig
from wuerstchen.data import open_pairs
from wuerstchen.errors import DataError, SaveError
from wuerstchen.prepare.prepare import prepare
from wuerstchen.receipts import Tariff, open_receipt

CONFIG = PrepareConfig(size=128, shard_size=2, format="png", test_fraction=0.25)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", some(6))


def stop_at_the_end(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is made, and nothing put together."""

    def stop(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wuerstchen.prepare.prepare.assemble", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(source), out, CONFIG)
    monkeypatch.undo()


@pytest.mark.parametrize(
    "harm",
    [
        lambda parts: (parts / "00001.tar").write_bytes(b""),
        lambda parts: (parts / "00001.tar").write_bytes((parts / "00001.tar").read_bytes()[:-512]),
        lambda parts: (parts / "00001.tar").unlink(),
        lambda parts: (parts / "00001.parquet").unlink(),
        lambda parts: (parts / "00001.parquet").write_bytes(b"PAR1"),
        lambda parts: (parts / "00001.json").write_bytes(b"{"),
    ],
)
def test_a_part_that_is_not_whole_any_more_is_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm
) -> None:
    stop_at_the_end(source, tmp_path / "out", monkeypatch)
    harm(tmp_path / "out" / "parts")
    again = prepare(str(source), tmp_path / "out", CONFIG)
    whole = prepare(str(source), tmp_path / "whole", CONFIG)
    assert rows(again) == rows(whole)
    for shard in (whole / "shards").iterdir():
        assert (again / "shards" / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.parametrize(
    "harm",
    [
        lambda out: (out / "shards/00001.tar").unlink(),
        lambda out: (out / "index.parquet").write_bytes(b""),
        lambda out: (out / "index.parquet").unlink(),
        lambda out: (out / "prepared.json").write_text("{}"),
    ],
)
def test_the_advice_for_a_damaged_set_can_be_followed(source: Path, tmp_path: Path, harm) -> None:
    out = prepare(str(source), tmp_path / "out", CONFIG)
    harm(out)
    advice = rf"or delete {out} and run the same `wuerstchen prepare` again"
    with pytest.raises(DataError, match=advice):
        open_pairs(DataConfig(path=str(out)))
    with pytest.raises(DataError, match=advice):
        prepare(str(source), out, CONFIG)
    shutil.rmtree(out)
    prepare(str(source), out, CONFIG)
    assert sum(map(len, open_pairs(DataConfig(path=str(out)))[:2])) == 6


def test_a_receipt_counts_the_images_of_all_processes(source: Path, tmp_path: Path) -> None:
    """Also those of other processes; what stood before is of the phase that made it."""
    words = ["size=128", "shard_size=1"]
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "wuerstchen",
                "prepare",
                str(source),
                str(tmp_path / "out"),
                *words,
            ],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "3"},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for rank in range(3)
    ]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    lines = {
        line.kind: line.amounts.images for line in open_receipt(tmp_path / "out", Tariff()).lines
    }
    assert lines == {"preparation": 6}


def test_a_field_that_no_image_has_is_refused(source: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"balance_by": "typo"})
    with pytest.raises(DataError, match=r"balance_by: .* found 'typo'; they have name, number\."):
        prepare(str(source), tmp_path / "out", config)
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_an_empty_name_is_no_source(tmp_path: Path) -> None:
    for name in ("", " "):
        with pytest.raises(DataError, match="source is empty"):
            prepare(name, tmp_path / "out", CONFIG)


def test_a_pattern_may_not_find_the_new_set(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_tar(root / "a" / "0.tar", some(4))
    for pattern in ("**/*.tar", "{a,*}/**/*.tar", "*/*/*.tar"):
        with pytest.raises(DataError, match="expected a folder outside"):
            prepare(str(root / pattern), root / "out", CONFIG)
    assert len(rows(prepare(str(root / "*" / "*.tar"), root / "out", CONFIG))) == 4


def test_a_set_without_images_to_train_with_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "source" / "test", some(3)).parent
    write(source / "train", {"bad.png": b"x", "bad.txt": "bad"})
    prepare(str(source), tmp_path / "out", CONFIG)
    assert "holds no image to train with: all 3 are held out" in caplog.text


def test_a_lock_that_the_disk_refuses_is_one_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, blocking: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("wuerstchen.prepare.claim.FileLock", refuse)
    with pytest.raises(SaveError, match=r"lock could not be written \(Permission denied\)"):
        prepare(str(source), tmp_path / "out", CONFIG)


def test_a_set_made_of_a_prepared_set_keeps_what_that_one_knows(tmp_path: Path) -> None:
    """Keys, splits, groups, captions of several lines and scores; filters apply anew."""
    table = [
        {
            "file_name": f"{k:03d}.png",
            "text": [f"image {k}\nof two lines", "another"],
            "name": f"group {k // 2}",
            "aesthetic": 4 + k / 10,
        }
        for k in range(12)
    ]
    images = {name: data for name, data in some(12).items() if name.endswith(".png")}
    lines = "\n".join(map(json.dumps, table))
    source = write(tmp_path / "source", {**images, "metadata.jsonl": lines})
    first = CONFIG.model_copy(update={"balance_by": "name", "test_fraction": 0.3})
    one = prepare(str(source), tmp_path / "one", first)
    again = CONFIG.model_copy(
        update={"test_fraction": 0.0, "filters": FilterConfig(min_aesthetic=4.15)}
    )
    two = prepare(str(one), tmp_path / "two", again)
    names = ("key", "split", "group", "captions", "aesthetic", "look")
    before, after = ([[row[name] for name in names] for row in rows(each)] for each in (one, two))
    assert after == before[2:] and len(after) == 10
    assert {row["split"] for row in rows(two)} == {"train", "test"}
    by_name = CONFIG.model_copy(update={"balance_by": "number"})
    with pytest.raises(DataError, match="found 'number'; they have aesthetic"):
        prepare(str(one), tmp_path / "three", by_name)


def test_a_damaged_set_is_no_source(source: Path, tmp_path: Path) -> None:
    one = prepare(str(source), tmp_path / "one", CONFIG)
    (one / "shards/00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001\.tar: expected a shard of"):
        prepare(str(one), tmp_path / "two", CONFIG)
