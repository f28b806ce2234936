"""Phases on disk: none is lost by kills or truncated lines, and none counts twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from made_phases import amounts, made

from wuerstchen.receipts import Meter, adopt_phases, open_receipt, write_receipts
from wuerstchen.receipts import meter as meters
from wuerstchen.receipts.phases import LEDGER, OPEN, append_phases, read_phases
from wuerstchen.receipts.receipt import Receipt, Tariff

WORKER = """
import sys, time
from pathlib import Path
from typing import NoReturn
from wuerstchen.receipts import Meter, meter
meter.SAVE_EVERY = 0.05
with Meter(Path(sys.argv[1]), stage="c", kind="training", devices=3, resumed_at=0) as running:
    while True:
        time.sleep(0.01)
        running.tick(images=10, flops=1e6)
        print("tick", flush=True)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder in which a process was killed at work, and how many ticks it made."""
    folder, ticks = tmp_path_factory.mktemp("killed"), 60
    command = [sys.executable, "-c", WORKER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(ticks):
            assert process.stdout.readline() == "tick\n"
        assert [phase.end for phase in read_phases(folder)] == ["open"]
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().count("tick")
    assert process.returncode == -signal.SIGKILL
    return folder, ticks + rest


def test_a_phase_that_is_killed_counts_with_what_it_had_used(killed: tuple[Path, int]) -> None:
    folder, ticks = killed
    (phase,) = read_phases(folder)
    work = phase.work["training"]
    assert phase.end == "killed"
    assert 10 * (ticks - 30) <= work.images <= 10 * (ticks + 1)
    assert work.flops == 1e5 * work.images
    assert work.seconds >= 0.0005 * work.images and work.device_seconds == 3 * work.seconds
    assert work.kwh > 0 and work.kg > 0
    receipt = open_receipt(folder, Tariff())
    assert [line.kind for line in receipt.lines] == ["failed attempts"]


def test_the_lock_of_a_process_that_died_at_once_is_removed(tmp_path: Path) -> None:
    (tmp_path / OPEN).mkdir(parents=True)
    (tmp_path / OPEN / "dead.lock").touch()
    with Meter(tmp_path, stage="c", kind="training"):
        assert [path.suffix for path in (tmp_path / OPEN).iterdir() if path.stem == "dead"] == []
    assert list((tmp_path / OPEN).iterdir()) == []


def test_work_adds_up_over_a_kill_and_its_resumption(
    killed: tuple[Path, int], tmp_path: Path
) -> None:
    """The second process resumes from 100 images: only later work of the first is lost."""
    shutil.copytree(killed[0], tmp_path, dirs_exist_ok=True)
    lost = read_phases(tmp_path)[0].work["training"]
    with Meter(tmp_path, stage="c", kind="training", devices=3, resumed_at=100) as meter:
        meter.tick(images=40)
    ledger = read_phases(tmp_path)
    assert [phase.end for phase in ledger] == ["killed", "done"]
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 2
    assert list((tmp_path / OPEN).iterdir()) == []
    lines = {line.kind: line.amounts for line in open_receipt(tmp_path, Tariff()).lines}
    assert lines["training"].images == 140
    assert lines["failed attempts"].images == lost.images - 100
    seconds = sum(phase.work["training"].seconds for phase in ledger)
    assert sum(each.seconds for each in lines.values()) == pytest.approx(seconds)


def test_a_phase_that_ends_while_another_reads_it_counts_as_it_ended(tmp_path: Path) -> None:
    """The other one took it for killed just before, and recorded that just after."""
    done = made("01", training=amounts(1, 10))
    append_phases(tmp_path, [done, done.model_copy(update={"end": "killed"})])
    assert read_phases(tmp_path) == [done]


def test_an_error_ends_a_phase_and_is_recorded(tmp_path: Path) -> None:
    def work() -> NoReturn:
        with Meter(tmp_path, stage="a", kind="training") as meter:
            meter.tick(images=8)
            raise RuntimeError("the card is burning\nbadly")

    with pytest.raises(RuntimeError, match="burning"):
        work()
    (phase,) = read_phases(tmp_path)
    assert (phase.end, phase.error) == ("stopped", "RuntimeError: the card is burning")
    assert open_receipt(tmp_path, Tariff()).failed.images == 8


def test_truncated_lines_are_skipped_and_others_kept(tmp_path: Path) -> None:
    append_phases(tmp_path, [made("01", training=amounts(1, 1))])
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"id": "half')
    append_phases(tmp_path, [made("02", training=amounts(2, 2))])
    assert [phase.id for phase in read_phases(tmp_path)] == ["01", "02"]


def test_earlier_names_of_kinds_are_still_read(tmp_path: Path) -> None:
    phase = made("01", end="stopped", training=amounts(1, 3), validation=amounts(1, 2))
    text = phase.model_dump_json(by_alias=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / LEDGER).write_text(text.replace('"validation"', '"look"') + "\n")
    assert read_phases(tmp_path) == [phase]
    receipt = write_receipts(tmp_path, Tariff())
    saved = tmp_path / "receipt.json"
    saved.write_text(saved.read_text().replace("failed attempts", "failed tries"))
    assert Receipt.model_validate_json(saved.read_bytes()) == receipt


def test_a_kill_between_ledger_and_open_file_counts_once(tmp_path: Path) -> None:
    phase = made("01", training=amounts(1, 1))
    append_phases(tmp_path, [phase])
    (tmp_path / OPEN).mkdir()
    text = phase.model_copy(update={"end": "open"}).model_dump_json()
    (tmp_path / OPEN / "01.json").write_text(text)
    assert [each.end for each in read_phases(tmp_path)] == ["done"]
    with Meter(tmp_path, stage="b", kind="evaluation"):
        pass
    assert len(read_phases(tmp_path)) == 2 and open_receipt(tmp_path, Tariff()).total.images == 1


def test_a_running_phase_is_not_touched_by_another(tmp_path: Path) -> None:
    with Meter(tmp_path, stage="c", kind="training") as training:
        training.tick(images=4)
        with Meter(tmp_path, stage="model", kind="evaluation"):
            pass
        assert [phase.end for phase in read_phases(tmp_path)] == ["open", "done"]
        training.tick(images=4)
    assert [phase.end for phase in read_phases(tmp_path)] == ["done", "done"]
    assert read_phases(tmp_path)[0].work["training"].images == 8


def test_validation_within_a_training_is_counted_separately(tmp_path: Path) -> None:
    start = time.perf_counter()
    with Meter(tmp_path, stage="c", kind="training", devices=2) as meter:
        begun = time.perf_counter()
        meter.tick(images=3)
        with meter.as_kind("validation"):
            time.sleep(0.2)
            meter.tick(images=16)
        meter.tick(images=4)
        done = time.perf_counter()
    work = read_phases(tmp_path)[0].work
    assert (work["training"].images, work["validation"].images) == (7, 16)
    assert work["validation"].seconds >= 0.2
    whole = work["training"].seconds + work["validation"].seconds
    assert done - begun <= whole <= time.perf_counter() - start


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    with Meter(tmp_path, stage="c", kind="training", devices=2, writes=False) as meter:
        meter.tick(images=3)
        with meter.as_kind("validation"):
            pass
    assert list(tmp_path.iterdir()) == []
    assert write_receipts(tmp_path, Tariff()) is None


def test_a_tick_takes_microseconds(tmp_path: Path) -> None:
    with Meter(tmp_path, stage="c", kind="training") as meter:
        start = time.perf_counter()
        for _ in range(10_000):
            meter.tick(images=1, flops=1.0)
        assert time.perf_counter() - start < 10_000 * 20e-6


def test_a_ledger_that_cannot_be_written_stops_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "SAVE_EVERY", 0.0)
    (tmp_path / "runs").write_text("a file where a folder should be")
    with Meter(tmp_path, stage="c", kind="training") as meter:
        for _ in range(3):
            meter.tick(images=1)
    assert sum("will be incomplete" in record.message for record in caplog.records) == 1


def test_costs_of_a_prepared_set_are_copied_once(tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "model"
    append_phases(data, [made("01", stage="data", kind="preparation", preparation=amounts(5, 9))])
    append_phases(model, [made("02", training=amounts(1, 1))])
    for _ in range(2):
        adopt_phases(data, model)
    adopt_phases(tmp_path, model)  # has no ledger
    lines = {line.stage: line.amounts.images for line in open_receipt(model, Tariff()).lines}
    assert lines == {"data": 9, "b": 1}
    assert open_receipt(model, Tariff()).total.images == 10
