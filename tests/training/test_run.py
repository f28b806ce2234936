"""What a whole run leaves, and what a second one does."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import config, run, start, values, weights_of, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import wuerstchen.config
from wuerstchen import Pipeline
from wuerstchen.errors import TrainingError
from wuerstchen.training import run as training_run

STAGES = ("a", "b", "c")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_leaves_what_it_did(trained: Path, images: Path, stage: str) -> None:
    run = trained / "runs" / stage
    assert wuerstchen.config.load(str(run / "config.yaml")) == config(images, trained)
    data = json.loads((run / "data.json").read_text())
    assert data["skipped"] == {"image does not decode": ["broken.png"]}
    assert data["used"] == 8
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert any("error" in entry and "learning_rate" in entry for entry in entries)
    assert [entry["images"] for entry in entries if "held_out" in entry] == [48, 96]
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert {"error", "held_out"} <= set(board.Tags()["scalars"])
    grids = sorted(path.name for path in (run / "grids").iterdir())
    assert grids == ["0000000048.png", "0000000096.png"]
    with Image.open(run / "grids" / grids[-1]) as grid:
        assert grid.size[0] >= 128
    assert json.loads((run / "finished.json").read_text()) == {"images": 96, "steps": 24}
    assert not (run / "checkpoints").exists()
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]


def test_the_model_folder_generates_at_its_training_size(trained: Path) -> None:
    info = json.loads((trained / "wuerstchen.json").read_text())
    assert (info["name"], info["size"]) == ("made", 128)
    pipeline = Pipeline.from_pretrained(trained)
    image = pipeline("a red disc", num_inference_steps=1, prior_num_inference_steps=1).images[0]
    assert image.size == (128, 128)


def test_a_finished_stage_is_not_trained_again(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    monkeypatch.setattr(training_run, "open_pairs", None)  # not even the data is read
    assert training_run.train(config(images, trained)) == trained
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_stage_without_the_ones_before_it_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Stage b needs stage_a .*train the stages before"):
        training_run.train(config(images, tmp_path / "none"), "b")
    assert not (tmp_path / "none").exists()


def test_an_earlier_stage_is_not_retrained_under_a_later_one(
    trained: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    with caplog.at_level("INFO", "wuerstchen"):
        training_run.train(config(images, folder))
    advice = next(r.getMessage() for r in caplog.records if "Stage a" in r.getMessage())
    for stage in STAGES:  # what it says has to be enough
        assert str(folder / "runs" / stage) in advice
    before = weights_of(folder)
    shutil.rmtree(folder / "runs" / "a")
    with pytest.raises(TrainingError, match=r"b, c in .* used the old one; delete .*runs"):
        training_run.train(config(images, folder))
    assert all((tensor == before[key]).all() for key, tensor in weights_of(folder).items())


def test_two_trainings_in_one_folder_are_refused(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    process = start("train", write_config(images, folder))
    try:
        while not (folder / "runs" / "a").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)  # it would be done before the second one starts
        second = run("train", write_config(images, folder))
    finally:
        process.kill()
        process.communicate()
    assert second.returncode == 2
    assert f"Another process is training in {folder}" in second.stderr
    assert "Traceback" not in second.stderr
    with training_run._exclusive(folder):  # a killed one does not keep the folder locked
        pass


@pytest.mark.parametrize(
    ("section", "key"),
    [("stage_c", "init_from"), ("stage_b", "compressor_weights"), ("stage_a", "vgg16_weights")],
)
def test_a_path_that_leads_nowhere_is_refused_before_any_work(
    images: Path, tmp_path: Path, section: str, key: str
) -> None:
    nowhere = str(tmp_path / "nowhere")
    settings = _with(config(images, tmp_path / "none"), section[-1], **{key: nowhere})
    with pytest.raises(TrainingError, match=rf"{section}.training.{key} is .*nowhere"):
        training_run.train(settings)
    assert not (tmp_path / "none").exists()


def test_a_batch_that_cannot_be_shared_is_refused(images: Path, tmp_path: Path) -> None:
    odd = _with(config(images, tmp_path / "none"), "a", gradient_accumulation=3)
    with pytest.raises(TrainingError, match=r"batch of stage a is 4, .* to a multiple of 3"):
        training_run.train(odd, "a")


def test_a_run_without_a_test_split_trains_without_validation(images: Path, tmp_path: Path) -> None:
    short = _with(config(images, tmp_path / "model"), "a", images=8, adversarial_start=0)
    data = short.data.model_copy(update={"test_fraction": 0.0})
    training_run.train(short.model_copy(update={"data": data}), "a")
    assert "held_out" not in (tmp_path / "model/runs/a/log.jsonl").read_text()


def test_stages_may_differ_in_precision(trained: Path, images: Path, tmp_path: Path) -> None:
    folder = copy_without(trained, tmp_path, "b", "c")
    settings = _with(config(images, folder), "b", images=8, precision="bf16")
    training_run.train(_with(settings, "c", images=8, precision="fp32"))
    assert (folder / "runs/c/finished.json").exists()


def test_training_from_a_finished_model_changes_it_as_training_does(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    """Weights come in eval mode, in which BatchNorm would keep its statistics."""
    settings = config(images, tmp_path / "next")
    for stage in STAGES:
        settings = _with(settings, stage, images=4, init_from=str(trained), batch_size=2)
    folder = training_run.train(settings)
    before, after = weights_of(trained), weights_of(folder)
    assert before.keys() == after.keys()
    for part in ("vqgan", "compressor"):
        counts = [key for key in before if key.startswith(part) and "num_batches" in key]
        assert counts
        assert all(after[key] == before[key] + 2 for key in counts)


def test_zero_images_copy_a_stage_unchanged(trained: Path, images: Path, tmp_path: Path) -> None:
    settings = _with(config(images, tmp_path / "next"), "b", images=0, init_from=str(trained))
    shutil.copytree(trained / "vqgan", tmp_path / "next" / "vqgan")
    after = weights_of(training_run.train(settings, "b"))
    before = weights_of(trained)
    assert all((after[key] == before[key]).all() for key in after)


def copy_without(trained: Path, tmp_path: Path, *stages: str) -> Path:
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    for stage in stages:
        shutil.rmtree(folder / "runs" / stage)
    return folder


def _with(
    settings: wuerstchen.config.Config, stage: str, **changes: object
) -> wuerstchen.config.Config:
    values = settings.model_dump(mode="json")
    values[f"stage_{stage}"]["training"].update(changes)
    return wuerstchen.config.parse(values, "changed")


def test_a_model_folder_carries_what_it_cost(trained: Path) -> None:
    receipt = json.loads((trained / "receipt.json").read_text(encoding="utf-8"))
    phases = {phase["stage"]: phase for phase in receipt["phases"]}
    assert set(phases) == {"a", "b", "c"}
    for stage, phase in phases.items():
        assert (phase["end"], phase["at"], phase["devices"]) == ("done", 0, 1)
        work, look = phase["work"]["training"], phase["work"]["validation"]
        assert work["images"] == 96, stage
        assert work["flops"] > 96 * 1e6 and work["kwh"] > 0 and work["seconds"] > 0
        assert look["seconds"] > 0 and look["images"] == 0
        assert (trained / "runs" / stage / "receipt.json").is_file()
    assert len({phase["config"] for phase in phases.values()}) == 1
    assert "<html" in (trained / "receipt.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("has", [True, False])
def test_bf16_on_a_processor_without_it_is_said_to_be_slow(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    short = {"precision": "bf16", "images": 4}
    plain = values(images, tmp_path / "model")
    plain["stage_a"]["training"] |= short
    with caplog.at_level("WARNING"):
        training_run.train(wuerstchen.config.parse(plain, "here"), "a")
    assert ("stage_a.training.precision=fp32" in caplog.text) is not has
