"""Scenes of stickers train as images on disk do: resumed exactly, and by every command."""

import shutil
import time
from pathlib import Path

import pytest
from made_stickers import COLOURS, HELD_OUT, TRAIN, write_set
from small_runs import run, start, values, weights_of

from wuerstchen.config import Config, DataConfig, dump, parse
from wuerstchen.evaluation import evaluate
from wuerstchen.evaluation.diagnose import diagnose
from wuerstchen.training import run as training_run

SCENES = 24


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def settings(stickers: Path, output: Path) -> Config:
    changed = values(stickers, output)
    changed["data"] = {"path": str(stickers), "scenes": SCENES}
    return parse(changed, "scenes")


@pytest.fixture(scope="module")
def model(stickers: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """All three stages, without an interruption. Do not write into it."""
    return training_run.train(settings(stickers, tmp_path_factory.mktemp("models") / "whole"))


def test_a_killed_run_resumes_as_if_never_stopped_and_with_its_stickers_alone(
    model: Path, stickers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    shutil.rmtree(folder / "runs/c")
    place = Path(shutil.copytree(stickers, tmp_path / "stickers"))
    config = tmp_path / "scenes.yaml"
    config.write_text(dump(settings(place, folder)))
    with start("train", config, "--stage", "c") as process:
        while not any((folder / "runs/c/checkpoints").glob("0*")) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate()
    assert not (folder / "runs/c/finished.json").exists()

    name, _ = TRAIN[0]
    monkeypatch.setitem(COLOURS, name, tuple(255 - level for level in COLOURS[name]))
    write_set(place, TRAIN)
    refused = run("train", config, "--stage", "c")
    assert refused.returncode != 0 and "started with other images or captions" in refused.stderr
    monkeypatch.undo()
    write_set(place, TRAIN)
    more = run("train", config, "--stage", "c", "data.scenes=25")
    assert more.returncode != 0 and "data.scenes was 24 and is 25" in more.stderr

    again = run("train", config, "--stage", "c")
    assert again.returncode == 0, again.stderr
    before, after = weights_of(model), weights_of(folder)
    assert before.keys() == after.keys()
    assert all((after[key] == before[key]).all() for key in after)


def test_a_model_is_evaluated_and_diagnosed_on_scenes(model: Path, stickers: Path) -> None:
    data = DataConfig(path=str(stickers), scenes=SCENES)
    figures = evaluate(model, data, prompts=2, images=2).figures
    assert {"stage_a_psnr", "semantics_psnr"} <= figures.keys()
    found = diagnose(model, data, images=2).to_json()
    assert str(stickers) in found


def test_the_semantics_of_scenes_are_stored_once(
    model: Path, stickers: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    config = tmp_path / "scenes.yaml"
    config.write_text(dump(settings(stickers, folder)))
    cache = f"data.latent_cache={tmp_path / 'encoded'}"
    assert run("encode", config, cache).returncode == 0
    shutil.rmtree(folder / "runs/c")
    trained = run("train", config, "--stage", "c", cache)
    assert trained.returncode == 0 and "Reading semantics from" in trained.stderr


def test_the_plan_of_a_training_on_scenes_needs_no_stickers(tmp_path: Path) -> None:
    words = (f"data.path={tmp_path / 'none'}", "data.scenes=20000")
    assert run("plan", "tiny", *words).returncode == 0
