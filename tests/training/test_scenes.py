"""Scenes of stickers train as images on disk do: resumed exactly, and by every command."""

import shutil
import time
from pathlib import Path

import pytest
from made_stickers import COLOURS, HELD_OUT, TRAIN, write_set
from small_runs import run, start, values, weights_of

from wuerstchen import weights
from wuerstchen.config import Config, DataConfig, dump, load, parse
from wuerstchen.data import open_pairs
from wuerstchen.errors import TrainingError
from wuerstchen.evaluation import evaluate
from wuerstchen.evaluation.diagnose import diagnose
from wuerstchen.training import run as training_run
from wuerstchen.training.cache_latents import encode
from wuerstchen.training.latent_cache import find_encoding

SCENES = 24


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def settings(stickers: Path, output: Path) -> Config:
    """A short run of every stage; that of Stage C has three checkpoints."""
    short = parse(values(stickers, output), "short").model_dump(mode="json")
    for stage, images in (("a", 8), ("b", 8), ("c", 48)):
        short[f"stage_{stage}"]["training"]["images"] = images
    short["stage_a"]["training"]["adversarial_start"] = 0
    short["data"] = {"path": str(stickers), "scenes": SCENES}
    return parse(short, "scenes")


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
    with pytest.raises(TrainingError, match="started with other images or captions"):
        training_run.train(load(str(config)), "c")
    monkeypatch.undo()
    write_set(place, TRAIN)
    with pytest.raises(TrainingError, match=r"data\.scenes was 24 and is 25"):
        training_run.train(load(str(config), ["data.scenes=25"]), "c")

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


def test_the_semantics_of_scenes_are_stored_and_found(
    model: Path, stickers: Path, tmp_path: Path
) -> None:
    folder, root = Path(shutil.copytree(model, tmp_path / "model")), str(tmp_path / "encoded")
    changed = settings(stickers, folder).model_dump(mode="json")
    changed["data"]["latent_cache"] = root
    config = parse(changed, "scenes")
    encode(config, ["semantics"], "fp32")
    train, _, _ = open_pairs(config.data)
    found = find_encoding(root, "semantics", weights.compressor.load(folder), train)
    assert found is not None and len(found) == SCENES
