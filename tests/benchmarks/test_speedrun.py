"""A run by the clock: scenes in memory, three trained stages, a folder that generates."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_stickers import HELD_OUT, TRAIN, write_set

from benchmarks.speedrun.scenes import Scenes
from wuerstchen import Pipeline
from wuerstchen.data.stickers import Composer, open_sprites

SMALL = {
    "data.size": 128,
    "stage_a.model.width": 16,
    "stage_a.model.depth": 1,
    "stage_a.model.codebook": 64,
    "stage_a.training.batch_size": 4,
    "stage_a.training.crop_size": 64,
    "stage_b.model.widths": "[16,32]",
    "stage_b.model.blocks": "[1,1]",
    "stage_b.model.heads": "[0,2]",
    "stage_b.training.batch_size": 4,
    "compressor.width": 0.25,
    "compressor.depth": 0.1,
    "stage_c.model.width": 32,
    "stage_c.model.depth": 1,
    "stage_c.model.heads": 2,
    "stage_c.model.text_width": 32,
    "stage_c.training.batch_size": 8,
    "text.width": 32,
    "text.depth": 1,
    "text.heads": 2,
    "text.vocab_size": 600,
}


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def test_scenes_in_memory_are_those_of_the_composer(stickers: Path, tmp_path: Path) -> None:
    scenes = Scenes(tmp_path, "train", stickers, 128, 260, seed=3)
    scenes.start(2)
    scenes.wait()
    composer = Composer(open_sprites(stickers), 128, 3)
    assert len(scenes) == 260
    for index in (0, 249, 250, 259):
        composed = composer[index]
        assert scenes[index].captions == tuple(each.text for each in composed.captions)
        assert bytes(scenes.pixels[index].numpy()) == composed.image.tobytes()
        assert scenes.truth(index) == composed.truth


def test_an_earlier_run_leaves_nothing_to_a_later_one(stickers: Path, tmp_path: Path) -> None:
    for seed in (3, 4):
        scenes = Scenes(tmp_path, "train", stickers, 128, 2, seed=seed)
        scenes.start(1)
        scenes.wait()
        composed = Composer(open_sprites(stickers), 128, seed)[0]
        assert scenes[0].captions == tuple(each.text for each in composed.captions)
        assert bytes(scenes.pixels[0].numpy()) == composed.image.tobytes()


@pytest.mark.slow
def test_a_run_by_the_clock_leaves_a_model_that_generates(stickers: Path, tmp_path: Path) -> None:
    values = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    config = "benchmarks/speedrun/h100.yaml"
    command = [sys.executable, "-m", "benchmarks.speedrun", str(stickers), str(tmp_path)]
    command += ["--config", config, "--scenes", "260", "--seconds", "3,3,3", *values]
    place = {"cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
    result = subprocess.run(command, timeout=400, **place)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert all(report[stage]["seconds"] < 20 and report[stage]["steps"] > 0 for stage in "abc")
    assert report["samples"]["psnr_a"] > 5
    images = Pipeline.from_pretrained(tmp_path / "stickers")("a flat cat", seed=1).images
    assert images[0].size == (128, 128)
