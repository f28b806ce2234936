"""Kills between any two writes: the same command then ends with the same weights and receipt."""

import json
import signal
from pathlib import Path

import pytest
import small_runs
import warm
from small_runs import values, weights_of

from wuerstchen.receipts import Tariff, open_receipt
from wuerstchen.receipts.phases import read_phases

IMAGES = 8
SAMPLED = 7
"""Every seventh write, unless all are asked for."""


@pytest.fixture(scope="module")
def config(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage A in two steps, with a checkpoint after each."""
    plain = values(images, Path("unset"))
    training = {"images": IMAGES, "checkpoint_every": 4, "validate_every": 8}
    plain["stage_a"]["training"] |= training  # type: ignore[index]
    path = tmp_path_factory.mktemp("kills") / "config.yaml"
    path.write_text(json.dumps(plain))
    return path


@pytest.fixture(scope="module")
def whole(config: Path) -> Path:
    """The model of a run without a kill."""
    folder = config.parent / "whole"
    assert train(config, folder) == 0
    return folder


def train(config: Path, folder: Path, kill_at: tuple[str, int] | None = None) -> int:
    """Train; kill_at: before the n-th write after the one to the named file."""
    environment = dict(small_runs.ENVIRONMENT)
    if kill_at is not None:
        environment["KILL_AT"] = json.dumps([str(folder), *kill_at])
    words = ("train", config, "--stage", "a", f"output={folder}")
    return warm.run(*words, environment=environment).returncode


def images_by_kind(folder: Path) -> dict[str, int]:
    lines = open_receipt(folder, Tariff()).lines
    return {line.kind: line.amounts.images for line in lines if line.amounts.images}


def check_end(folder: Path, whole: Path) -> None:
    """The weights are the same, and the receipt has all work of all phases, none of it twice."""
    before, after = weights_of(whole), weights_of(folder)
    assert before.keys() == after.keys()
    assert all((after[name] == tensor).all() for name, tensor in before.items())
    phases = read_phases(folder)
    done = sum(phase.images for phase in phases)
    found = images_by_kind(folder)
    assert found.pop("training") == IMAGES
    assert found.pop("failed attempts", 0) == done - IMAGES and not found
    written = json.loads((folder / "receipt.json").read_text())
    assert [each["id"] for each in written["phases"]] == [phase.id for phase in phases]
    assert not list((folder / "runs" / "open").iterdir())


@pytest.mark.parametrize(
    "kill_at",
    [
        ("runs/a/finished.json", 1),
        ("runs/a/finished.json", 2),
        ("runs/phases.jsonl", 1),
        ("runs/phases.jsonl", 2),
        ("/receipt.json", 1),
    ],
    ids=lambda each: f"{each[1]} after {each[0]}",
)
def test_a_kill_after_the_end_of_a_stage_costs_no_work(
    config: Path, whole: Path, tmp_path: Path, kill_at: tuple[str, int]
) -> None:
    folder = tmp_path / "model"
    assert train(config, folder, kill_at) == -signal.SIGKILL
    assert images_by_kind(folder) == {"training": IMAGES}
    assert train(config, folder) == 0
    check_end(folder, whole)


@pytest.mark.slow
def test_a_kill_before_any_write_costs_no_more_than_a_step(
    config: Path, whole: Path, tmp_path: Path, all_cases: bool
) -> None:
    survived, number = False, 0
    while not survived:
        number += 1 if all_cases else SAMPLED
        folder = tmp_path / str(number)
        survived = train(config, folder, ("", number)) == 0
        assert train(config, folder) == 0, number
        check_end(folder, whole)
    assert number > 50
