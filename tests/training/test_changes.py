"""Laws of going on with another config: what would change the training is named and refused."""

import shutil
import time
from pathlib import Path

import pytest
from small_runs import config, run, start, write_config

from wuerstchen.config import Config, dump, parse
from wuerstchen.errors import TrainingError
from wuerstchen.training.changes import check_unchanged


def changed(settings: Config, key: str, value: object) -> Config:
    values = settings.model_dump(mode="json")
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    section[last] = value
    return parse(values, "changed")


@pytest.fixture
def begun(pictures: Path, tmp_path: Path) -> tuple[Path, Config]:
    """The folder of a run of Stage C that has a checkpoint."""
    settings = config(pictures, tmp_path / "model")
    folder = tmp_path / "model/runs/c"
    (folder / "checkpoints/000000000016").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(settings))
    return folder, settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("data.size", 256),
        ("data.sample_by", "name"),
        ("stage_c.model.depth", 2),
        ("stage_c.training.weight", "data"),
        ("stage_c.training.batch", 8),
        ("stage_c.training.text_drop", 0.5),
    ],
)
def test_a_change_of_what_is_trained_is_named(begun, key: str, value: object) -> None:
    folder, settings = begun
    check_unchanged(folder, settings, "c")
    with pytest.raises(TrainingError, match=rf"another config: {key} was .* and is .*--allow"):
        check_unchanged(folder, changed(settings, key, value), "c")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stage_c.training.images", 960),
        ("stage_c.training.learning_rate", 1e-5),
        ("stage_c.training.look_every", 1),
        ("stage_c.training.accumulate", 2),
        ("data.path", "elsewhere"),
        ("data.memory", 0.0),
        ("stage_b.training.clip", 3.0),
        ("name", "another"),
    ],
)
def test_how_long_how_fast_and_where_may_change(begun, key: str, value: object) -> None:
    folder, settings = begun
    check_unchanged(folder, changed(settings, key, value), "c")


def test_what_was_not_begun_may_be_anything(begun) -> None:
    folder, settings = begun
    shutil.rmtree(folder / "checkpoints")
    check_unchanged(folder, changed(settings, "seed", 7), "c")


def test_a_config_that_is_no_longer_one_is_said(begun) -> None:
    folder, settings = begun
    (folder / "config.yaml").write_text("[1, 2")
    with pytest.raises(TrainingError, match=r"config.yaml: expected the config"):
        check_unchanged(folder, settings, "c")


def test_the_command_refuses_and_goes_on_when_told(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    shutil.rmtree(folder / "runs/c")
    words = ("train", write_config(pictures, folder), "--stage", "c")
    process = start(*words)
    checkpoint = folder / "runs/c/checkpoints" / f"{32:012d}"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    other = (*words, "stage_c.training.text_drop=0.9")
    refused = run(*other)
    assert refused.returncode == 2
    assert "stage_c.training.text_drop was 0.05 and is 0.9" in refused.stderr
    assert checkpoint.exists(), "nothing was lost"
    assert run(*other, "--allow-changes").returncode == 0
