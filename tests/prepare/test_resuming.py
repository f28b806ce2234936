"""Laws of resuming: damaged parts are made again, processes end as one, receipts add up."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import warm
from made_data import write
from made_sources import as_bytes, contents, drawing, rows, some

from wuerstchen.config import DataConfig, FilterConfig, PrepareConfig, load_prepare
from wuerstchen.data import open_pairs
from wuerstchen.errors import DataError, SaveError
from wuerstchen.prepare.parts import write_rows
from wuerstchen.prepare.prepare import prepare
from wuerstchen.prepare.work_units import digest_of, work_units
from wuerstchen.receipts import Tariff, open_receipt
from wuerstchen.receipts.phases import read_phases

CONFIG = PrepareConfig(size=128, shard_size=2, format="png", test_fraction=0.25)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return write(tmp_path_factory.mktemp("data") / "source", some(6))


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    """A prepared set of `source`, not to be written to."""
    return prepare(str(source), source.parent / "whole", CONFIG)


@pytest.fixture(scope="module")
def interrupted(source: Path) -> Path:
    """What `interrupt` leaves of `source`, not to be written to."""
    return interrupt(source, source.parent / "interrupted")


def interrupt(source: Path, out: Path) -> Path:
    """Make every part, but do not assemble the set."""

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wuerstchen.prepare.prepare.assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(str(source), out, CONFIG)
    return out


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
def test_a_part_that_is_no_longer_complete_is_made_again(
    source: Path, whole: Path, interrupted: Path, tmp_path: Path, harm
) -> None:
    out = shutil.copytree(interrupted, tmp_path / "out")
    harm(out / "parts")
    again = prepare(str(source), out, CONFIG)
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
def test_the_advice_for_a_damaged_set_can_be_followed(
    source: Path, whole: Path, tmp_path: Path, harm
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    harm(out)
    advice = rf"or delete {out} and run the same `wuerstchen prepare` again"
    with pytest.raises(DataError, match=advice):
        open_pairs(DataConfig(path=str(out)))
    with pytest.raises(DataError, match=advice):
        prepare(str(source), out, CONFIG)
    shutil.rmtree(out)
    prepare(str(source), out, CONFIG)
    assert sum(map(len, open_pairs(DataConfig(path=str(out)))[:2])) == 6


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


def command(*words: object, **environment: str) -> warm.Command:
    return warm.server().start("prepare", *words, environment={**os.environ, **environment})


def ended(child: warm.Command) -> int | None:
    child.communicate()
    return child.returncode


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    source, out = write(tmp_path / "source", some(60)), tmp_path / "out"
    settings = ["size=128", "shard_size=4", "format=png"]
    whole = prepare(str(source), tmp_path / "whole", load_prepare(None, settings))
    for _ in range(3):
        child = command(source, out, *settings)
        before = len(list(out.glob("parts/*.json")))
        while child.poll() is None and len(list(out.glob("parts/*.json"))) < before + 3:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        ended(child)
    assert ended(command(source, out, *settings)) == 0
    assert contents(out) == contents(whole)


def test_processes_share_the_work_and_end_as_one(tmp_path: Path) -> None:
    """Also their receipt, which counts the images of all processes."""
    source, out = write(tmp_path / "source", some(9)), tmp_path / "out"
    settings = ["size=128", "shard_size=2", "format=png"]
    whole = prepare(str(source), tmp_path / "whole", load_prepare(None, settings))
    children = [
        command(source, out, *settings, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)
    ]
    assert [ended(child) for child in children] == [0, 0]
    assert contents(out) == contents(whole)
    lines = {line.kind: line.amounts.images for line in open_receipt(out, Tariff()).lines}
    assert lines == {"preparation": 9}


def test_images_that_changed_since_the_interruption_are_made_again(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(6))
    out = interrupt(source, tmp_path / "out")
    write(source, {"000.png": as_bytes(drawing(77)), "000.json": '{"captions": []}'})
    write(source, {"000.txt": "another image"})
    prepare(str(source), out, CONFIG)
    assert next(r for r in rows(out) if r["key"] == "000.png")["captions"] == ["another image"]


def test_progress_counts_every_image_and_every_shard_once(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(7))
    calls: list[tuple[int, int]] = []
    prepare(
        str(source),
        tmp_path / "out",
        CONFIG.model_copy(update={"shard_size": 3}),
        on_progress=lambda images, units: calls.append((images, units)),
    )
    assert sum(images for images, _ in calls) == 7
    assert sum(images == 0 for images, _ in calls) == 3 and {units for _, units in calls} == {3}


def test_a_kill_at_the_very_end_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    out = prepare(str(source), tmp_path / "out", CONFIG)
    (out / "parts").mkdir()
    (out / "parts/00000.tar").write_bytes(b"as large as the set")
    prepare(str(source), out, CONFIG)
    assert not (out / "parts").exists()


def test_shards_of_a_preparation_that_was_stopped_are_no_failed_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of nine images are in complete shards; the third shard is made again."""
    source, out = write(tmp_path / "source", some(9)), tmp_path / "out"
    config = CONFIG.model_copy(update={"shard_size": 3})
    wrote: list[Path] = []

    def full(path: Path, table: object) -> bytes:
        wrote.append(path)
        if len(wrote) == 3:
            raise SaveError("full")
        return write_rows(path, table)

    monkeypatch.setattr("wuerstchen.prepare.parts.write_rows", full)
    with pytest.raises(SaveError):
        prepare(str(source), out, config)
    monkeypatch.undo()
    prepare(str(source), out, config)
    lines = {line.kind: line.amounts.images for line in open_receipt(out, Tariff()).lines}
    assert lines == {"preparation": 9, "failed attempts": 3}
    data = {phase.data for phase in read_phases(out)}
    assert data == {digest_of(work_units(str(source), PrepareConfig(shard_size=3))[0])}
