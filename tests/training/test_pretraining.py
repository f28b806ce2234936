"""Pretraining runs once, before its stage, and the stage starts from it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_runs import values, weights_of

from wuerstchen.config import Config, load, parse
from wuerstchen.training import run as training_run

pytestmark = pytest.mark.device

REHEARSAL = {
    "images": 320,
    "batch_size": 8,
    "width": 16,
    "learning_rate": 4e-3,
    "warmup_steps": 4,
    "ema_decay": 0.9,
    "validate_every": 160,
    "validation_images": 2,
}


def changed(images: Path, output: Path, stage: str, **changes: object) -> Config:
    """The config of small runs with other values in one stage's section."""
    whole = json.loads(json.dumps(values(images, output)))
    for key, value in changes.items():
        section = whole[f"stage_{stage}"].setdefault(key, {})
        section.update(value)
    return parse(whole, "small runs with a pretraining")


def without(trained: Path, folder: Path, *runs: str) -> Path:
    """A copy of the trained model whose `runs` are to be done again."""
    shutil.copytree(trained, folder)
    for name in runs:
        shutil.rmtree(folder / "runs" / name)
    return folder


def errors(folder: Path, run: str) -> list[float]:
    lines = (folder / "runs" / run / "log.jsonl").read_text().splitlines()
    return [entry["error"] for entry in map(json.loads, lines) if "error" in entry]


def test_they_come_before_their_stage_and_never_after(tmp_path: Path) -> None:
    pretraining = [f"stage_{stage}.pretraining={{images: 8, batch_size: 2}}" for stage in "bc"]
    config = load("small", [f"output={tmp_path}", *pretraining])
    assert training_run._planned_runs(config, None) == [
        "a",
        "b-pretraining",
        "b",
        "c-pretraining",
        "c",
    ]
    assert training_run._planned_runs(config, "b") == ["b-pretraining", "b"]
    assert training_run._planned_runs(config, "c") == ["c-pretraining", "c"]
    for stage, left in (("b", ["a", "b", "c-pretraining", "c"]), ("c", ["a", "b", "c"])):
        done = tmp_path / "runs" / stage / "finished.json"
        done.parent.mkdir(parents=True)
        done.write_text("{}")
        assert training_run._planned_runs(config, None) == left


@pytest.mark.parametrize(
    ("stage", "part"), [("b", "compressor"), ("c", "prior_text_encoder")], ids=["b", "c"]
)
def test_what_was_pretrained_has_learned_and_is_where_its_stage_begins(
    trained: Path,
    images: Path,
    tmp_path: Path,
    stage: training_run.StageName,
    part: str,
) -> None:
    folder = without(trained, tmp_path / "model", *("b", "c")["bc".index(stage) :])
    config = changed(
        images,
        folder,
        stage,
        pretraining=REHEARSAL,
        training={"images": 8, "batch_size": 8, "learning_rate": 1e-9},  # too slow to move anything
    )
    pretraining = f"{stage}-pretraining"
    training_run.train(config, stage)
    found = errors(folder, pretraining)
    assert found[-1] < 0.7 * found[0], found
    pretrained = weights_of(folder / "runs" / pretraining / part)
    before = weights_of(trained / part)
    assert any((pretrained[key] != before[key]).any() for key in before)
    after = weights_of(folder / part)
    learned = {key for key in after if "running" not in key and "tracked" not in key}
    assert learned
    for key in learned:
        np.testing.assert_allclose(after[key], pretrained[key], atol=1e-6, err_msg=key)


def test_a_frozen_compressor_stays_and_stage_b_goes_on(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    folder = without(trained, tmp_path / "model", "b")
    training = {"images": 32, "init_from": str(trained), "freeze_compressor": True}
    training_run.train(changed(images, folder, "b", training=training), "b")
    before, after = weights_of(trained), weights_of(folder)
    for key, tensor in before.items():
        same = (after[key] == tensor).all()
        if key.startswith("compressor"):
            assert same, key
    assert any((after[k] != v).any() for k, v in before.items() if k.startswith("decoder"))
