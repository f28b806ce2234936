"""Receipts: kinds of work, sums, and hashes."""

import json
from pathlib import Path

import pytest
from made_phases import amounts, made

from wuerstchen.config import dump, load
from wuerstchen.errors import ModelFolderError
from wuerstchen.receipts import (
    Meter,
    Receipt,
    Tariff,
    add_receipts,
    open_receipt,
    saved_tariff,
    write_receipts,
)
from wuerstchen.receipts.phases import LEDGER, Phase, append_phases
from wuerstchen.receipts.receipt import make_receipt


def images(*phases: Phase) -> dict[tuple[str, str], int]:
    receipt = make_receipt("x", phases, Tariff())
    return {(line.stage, line.kind): line.amounts.images for line in receipt.lines}


def test_everything_counts_by_stage_and_kind() -> None:
    found = images(
        made("01", stage="data", kind="preparation", preparation=amounts(1, 50)),
        made("02", stage="c", kind="encoding", encoding=amounts(1, 40)),
        made("03", stage="c", training=amounts(3, 30), validation=amounts(1, 2)),
        made("04", stage="c", training=amounts(2, 20), validation=amounts(1, 3)),
        made("05", stage="model", kind="evaluation", evaluation=amounts(1, 10)),
        made("06", stage="a", kind="training", end="stopped", training=amounts(1, 7)),
    )
    assert list(found.items()) == [
        (("data", "preparation"), 50),
        (("a", "failed attempts"), 7),
        (("c", "encoding"), 40),
        (("c", "training"), 50),
        (("c", "validation"), 5),
        (("model", "evaluation"), 10),
    ]


def test_resumed_work_is_a_failed_attempt_only_after_the_checkpoint() -> None:
    first = made(
        "01", end="killed", resumed_at=0, training=amounts(10, 1000), validation=amounts(1, 100)
    )
    assert images(first) == {("b", "failed attempts"): 1100}
    second = made("02", resumed_at=900, training=amounts(1, 100))
    assert images(first, second) == {
        ("b", "training"): 1000,
        ("b", "validation"): 90,
        ("b", "failed attempts"): 110,
    }


def test_saved_work_counts_however_its_phase_ended() -> None:
    stopped = made("01", end="killed", saved=900, training=amounts(10, 1000))
    assert images(stopped) == {("b", "training"): 900, ("b", "failed attempts"): 100}
    done = stopped.model_copy(update={"end": "done"})
    assert images(done) == {("b", "training"): 1000}


def test_work_that_was_lost_once_stays_lost() -> None:
    """The second resumes from 200: later work of the first is lost for the third, too."""
    phases = [
        made(name, resumed_at=start, training=amounts(1, count))
        for name, start, count in (("01", 0, 500), ("02", 200, 300), ("03", 450, 50))
    ]
    assert images(*phases) == {("b", "training"): 500, ("b", "failed attempts"): 350}


def test_starting_a_stage_again_makes_its_past_a_failed_attempt() -> None:
    old = made("01", resumed_at=0, training=amounts(5, 500))
    new = made("02", resumed_at=0, training=amounts(3, 300))
    assert images(old, new) == {("b", "training"): 300, ("b", "failed attempts"): 500}
    other = new.model_copy(update={"stage": "c"})
    assert images(old, other) == {("b", "training"): 500, ("c", "training"): 300}


def test_the_lines_add_up_to_the_phases_whatever_was_lost() -> None:
    phases = [
        made("01", end="killed", resumed_at=0, training=amounts(7, 333), validation=amounts(2, 10)),
        made("02", end="stopped", resumed_at=200, training=amounts(5, 217)),
        made("03", resumed_at=401, training=amounts(9, 99), validation=amounts(3, 5)),
    ]
    receipt = make_receipt("x", phases, Tariff())
    work = [each for phase in phases for each in phase.work.values()]
    for field in ("seconds", "device_seconds", "images", "flops", "kwh", "kwh_measured", "kg"):
        expected = sum(getattr(each, field) for each in work)
        assert getattr(receipt.total, field) == pytest.approx(expected), field
    assert receipt.energy_is == "50% measured, the rest estimated"


def test_two_receipts_added_are_the_receipt_of_both() -> None:
    """A shared prepared set counts once."""
    shared = made("01", stage="data", kind="preparation", preparation=amounts(4, 40))
    a, b = made("02", stage="a", training=amounts(2, 20)), made("03", training=amounts(3, 30))
    tariff = Tariff(per_device_hour=2.0)
    together = add_receipts(
        "x",
        [make_receipt("a", [shared, a], tariff), make_receipt("b", [shared, b], tariff)],
        tariff,
    )
    assert together == make_receipt("x", [shared, a, b], tariff)


def test_failed_attempts_of_one_model_are_not_those_of_another() -> None:
    """Both train stage b from 0; in one model the first would be a failed attempt."""
    parts = [
        make_receipt(name, [made(name, resumed_at=0, training=amounts(2, 20))], Tariff())
        for name in ("01", "02")
    ]
    together = add_receipts("x", parts, Tariff())
    assert together.total.images == 40 and together.failed.images == 0


def test_money_is_device_hours_and_kilowatt_hours_at_the_tariff() -> None:
    phase = made("01", training=amounts(3600))  # two devices for an hour, 360 kWh
    tariff = Tariff(currency="EUR", per_device_hour=1.5, per_kwh=0.3)
    receipt = make_receipt("x", [phase], tariff)
    assert receipt.money == pytest.approx(2 * 1.5 + 360 * 0.3)
    assert make_receipt("x", [phase], Tariff()).money is None


def test_a_country_moves_the_co2_and_not_the_energy() -> None:
    pytest.importorskip("codecarbon")
    phase = made("01", training=amounts(10))
    home, moved = (make_receipt("x", [phase], Tariff(country=c)) for c in ("", "FRA"))
    assert moved.total.kwh == home.total.kwh
    assert moved.total.kg < home.total.kg
    assert {each.country for each in moved.phases} == {"FRA"}


def test_hashes_change_with_a_key_of_the_config(tmp_path: Path) -> None:
    found = []
    for name, seed in (("x", 1), ("y", 2), ("z", 1)):
        config = dump(load("tiny", [f"seed={seed}"]))
        with Meter(tmp_path / name, stage="a", kind="training", config=config, data="da7a"):
            pass
        found.append(open_receipt(tmp_path / name, Tariff()).hashes)
    assert found[0]["config of a"] != found[1]["config of a"]
    assert found[0] == found[2]
    assert found[0]["data"] == ["da7a"] and len(found[0]["code"][0]) == 64


def test_a_receipt_is_written_to_the_folder_and_to_each_run(tmp_path: Path) -> None:
    for stage in ("a", "b"):
        (tmp_path / "runs" / stage).mkdir(parents=True)
    work = [made("01", stage="a", training=amounts(1, 3)), made("02", training=amounts(2, 4))]
    append_phases(tmp_path, work)
    tariff = Tariff(per_device_hour=1.0, currency="CHF")
    whole = write_receipts(tmp_path, tariff)
    assert whole is not None and whole.total.images == 7
    for place, count in ((tmp_path, 7), (tmp_path / "runs/a", 3), (tmp_path / "runs/b", 4)):
        saved = Receipt.model_validate(json.loads((place / "receipt.json").read_text()))
        assert saved.total.images == count and saved.tariff == tariff
        assert (place / "receipt.html").is_file()
    assert saved_tariff(tmp_path) == tariff


def test_a_model_copied_without_its_runs_keeps_its_receipt(tmp_path: Path) -> None:
    append_phases(tmp_path, [made("01", training=amounts(1, 3))])
    before = write_receipts(tmp_path, Tariff())
    (tmp_path / LEDGER).unlink()
    assert open_receipt(tmp_path, Tariff()) == before


def test_a_folder_without_measurements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"found neither; only work"):
        open_receipt(tmp_path, Tariff())
    (tmp_path / "receipt.json").write_text('{"version": 7}')
    with pytest.raises(ModelFolderError, match=r"receipt\.json: expected a receipt, found"):
        open_receipt(tmp_path, Tariff())
