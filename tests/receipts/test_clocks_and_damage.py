"""Receipts are right whatever the clock did, and damaged lines cost only themselves."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_phases import amounts, made

from wuerstchen.receipts import Meter, Tariff, open_receipt, write_receipts
from wuerstchen.receipts import meter as meters
from wuerstchen.receipts.attribution import attribute
from wuerstchen.receipts.phases import LEDGER, OPEN, Phase, append_phases, read_phases


class Clock(datetime):
    """A clock that tests set."""

    offset = timedelta()

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + cls.offset


@pytest.mark.parametrize(
    "days", [(0, -400, 400, -1), (400, 0, -20_000, 1), (0, 1, 2, 3)], ids=["back", "ahead", "right"]
)
def test_a_clock_that_is_set_between_and_in_phases_changes_no_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: tuple[int, ...]
) -> None:
    """Each phase resumes 4 images before the end of the last one, and is stopped but for one."""
    monkeypatch.setattr(meters, "datetime", Clock)
    for number, day in enumerate(days):
        monkeypatch.setattr(Clock, "offset", timedelta(days=day))
        before = time.perf_counter()
        stopped = suppress(KeyboardInterrupt)
        with stopped, Meter(tmp_path, stage="b", kind="training") as meter:
            meter.resume_from(6 * number)
            monkeypatch.setattr(Clock, "offset", timedelta(days=-day))
            meter.tick(images=10)
            if number < 3:
                raise KeyboardInterrupt
        seconds = read_phases(tmp_path)[-1].work["training"].seconds
        assert 0 <= seconds <= time.perf_counter() - before
    assert [phase.resumed_at for phase in read_phases(tmp_path)] == [0, 6, 12, 18]
    lines = {line.kind: line.amounts.images for line in open_receipt(tmp_path, Tariff()).lines}
    assert lines == {"training": 28, "failed attempts": 12}


def test_phases_killed_under_another_clock_stand_before_what_resumed_from_them(
    tmp_path: Path,
) -> None:
    killed = made("50", end="open", resumed_at=0, training=amounts(1, 10))
    (tmp_path / OPEN).mkdir(parents=True)
    (tmp_path / OPEN / "50.json").write_text(killed.model_dump_json(by_alias=True))
    with Meter(tmp_path, stage="b", kind="training", resumed_at=8) as meter:
        meter.tick(images=2)
        assert [phase.end for phase in read_phases(tmp_path)] == ["killed", "open"]
    lines = {line.kind: line.amounts.images for line in open_receipt(tmp_path, Tariff()).lines}
    assert lines == {"training": 10, "failed attempts": 2}


def test_a_process_that_another_took_for_killed_counts_as_it_ended(tmp_path: Path) -> None:
    """As on disks without locks: the wrong line stands first."""
    done = made("01", training=amounts(1, 10))
    append_phases(tmp_path, [done.model_copy(update={"end": "killed"}), done])
    assert read_phases(tmp_path) == [done]


def finish(folder: Path, images: int) -> None:
    run = folder / "runs" / "b"
    run.mkdir(parents=True, exist_ok=True)
    (run / "finished.json").write_text(json.dumps({"images": images, "steps": 1}))


@pytest.mark.parametrize("end", ["killed", "stopped"])
@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        (32, {"training": 32}),
        (64, {"failed attempts": 32}),  # of another start
        (None, {"failed attempts": 32}),
    ],
)
def test_a_phase_that_ended_after_its_stage_was_finished_is_no_failed_attempt(
    tmp_path: Path, end: str, finished: int | None, expected: dict[str, int]
) -> None:
    phase = made("01", end=end, resumed_at=0, training=amounts(1, 32))  # type: ignore[arg-type]
    append_phases(tmp_path, [phase])
    if finished is not None:
        finish(tmp_path, finished)
    lines = {line.kind: line.amounts.images for line in open_receipt(tmp_path, Tariff()).lines}
    assert lines == expected


def test_a_stage_trained_again_makes_also_a_killed_end_a_failed_attempt(tmp_path: Path) -> None:
    phases = [
        made("01", end="killed", resumed_at=0, training=amounts(1, 32)),
        made("02", resumed_at=0, training=amounts(1, 32)),
    ]
    append_phases(tmp_path, phases)
    finish(tmp_path, 32)
    lines = {line.kind: line.amounts.images for line in open_receipt(tmp_path, Tariff()).lines}
    assert lines == {"training": 32, "failed attempts": 32}


def line(**changes: object) -> str:
    values = json.loads(made("02", training=amounts(2, 2)).model_dump_json(by_alias=True))
    return json.dumps(values | changes)


HUGE = "9" * 400
DAMAGED = {
    "foreign kind": line(kind="knitting"),
    "foreign kind of work": line(work={"knitting": {"images": 1}}),
    "foreign end": line(end="exploded"),
    "missing key": json.dumps({"id": "02"}),
    "a list": "[]",
    "a number": "7",
    "truncated": line()[:200],
    "not JSON": "hello",
    "not UTF-8": b"\xff\xfe\xff",
    "binary": bytes(range(1, 10)),
    "deep": "[" * 100_000,
    "huge count": line(work={"training": {"images": 1}}).replace(
        '"images": 1', f'"images": {HUGE}'
    ),
    "huge seconds": line(work={"training": {"seconds": 1e300}}),
    "huge devices": line(devices=10**40),
    "negative": line(work={"training": {"images": -5}}),
    "negative start": line(at=-1),
    "infinite": line(work={"training": {"kwh": 1}}).replace('"kwh": 1', '"kwh": 1e999'),
    "no number": line(work={"training": {"kwh": 1}}).replace('"kwh": 1', '"kwh": NaN'),
    "path as stage": line(stage="../../elsewhere"),
    "dots as stage": line(stage=".."),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_line_costs_only_itself_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    append_phases(tmp_path, [made("01", training=amounts(1, 1))])
    damaged = DAMAGED[kind]
    with (tmp_path / LEDGER).open("ab") as file:
        file.write((damaged if isinstance(damaged, bytes) else damaged.encode()) + b"\n")
    append_phases(tmp_path, [made("03", training=amounts(3, 3))])
    assert [phase.id for phase in read_phases(tmp_path)] == ["01", "03"]
    assert "phases.jsonl: expected a phase of work on each line; left out: line 2 (" in caplog.text
    receipt = write_receipts(tmp_path, Tariff())
    assert receipt is not None and receipt.total.images == 4
    assert not (tmp_path.parent / "elsewhere").exists()


def test_keys_of_other_versions_are_named_and_the_phase_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs").mkdir()
    work = {"training": {"images": 2, "water": 1.0}}
    (tmp_path / LEDGER).write_text(line(mood="good", work=work) + "\n")
    (phase,) = read_phases(tmp_path)
    assert phase.images == 2
    assert "keys that this version does not know are not used: mood, work.training.water." in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("02.json", lambda: line(id="../../../victim")),
        ("02.json", lambda: line()[:100]),
        ("victim.json", lambda: line()),
    ],
    ids=["path", "truncated", "another name"],
)
def test_a_foreign_running_phase_is_named_and_left_alone(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    content: Callable[[], str],
) -> None:
    victim = tmp_path / "victim.json"
    victim.write_text("of a user")
    folder = tmp_path / "a" / "model"
    (folder / OPEN).mkdir(parents=True)
    (folder / OPEN / name).write_text(content())
    with Meter(folder, stage="b", kind="training") as meter:
        meter.tick(images=1)
    assert [phase.images for phase in read_phases(folder)] == [1]
    assert victim.read_text() == "of a user" and (folder / OPEN / name).exists()
    assert f"{name}: expected" in caplog.text


def test_sums_of_many_phases_take_linear_time() -> None:
    """Every phase of ten thousand was compared with all later ones: 90 seconds."""
    some, many = (
        [made(f"{k:05d}", resumed_at=k, training=amounts(1, 1)) for k in range(count)]
        for count in (500, 5000)
    )

    def seconds(phases: list[Phase]) -> float:
        start = time.process_time()
        assert len(list(attribute(phases))) == len(phases)
        return time.process_time() - start

    assert seconds(many) < 40 * seconds(some)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_ledger_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    from wuerstchen.errors import ModelFolderError

    append_phases(tmp_path, [made("01", training=amounts(1, 1))])
    (tmp_path / LEDGER).chmod(0)
    with pytest.raises(ModelFolderError, match="expected a readable ledger"):
        read_phases(tmp_path)
