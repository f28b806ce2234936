"""Resuming with another config: what would change the training is named and refused."""

import json
import shutil
import time
from pathlib import Path

import pytest
from small_runs import config, run, start, write_config
from torch import Tensor

from wuerstchen.config import Config, dump, parse
from wuerstchen.data import open_pairs
from wuerstchen.errors import TrainingError
from wuerstchen.receipts.phases import read_phases
from wuerstchen.training import run as training_run
from wuerstchen.training.checkpoints import Checkpoints, Progress
from wuerstchen.training.resume_check import check_same_data, check_unchanged


def changed(settings: Config, key: str, value: object) -> Config:
    values = settings.model_dump(mode="json")
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    section[last] = value
    return parse(values, "changed")


@pytest.fixture
def started(images: Path, tmp_path: Path) -> tuple[Path, Config]:
    """The folder of a run of Stage C that has a checkpoint."""
    settings = config(images, tmp_path / "model")
    folder = tmp_path / "model/runs/c"
    (folder / "checkpoints/000000000016").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(settings))
    return folder, settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("data.size", 256),
        ("data.balance_by", "name"),
        ("stage_c.model.depth", 2),
        ("stage_c.training.loss_weighting", "data"),
        ("stage_c.training.batch_size", 8),
        ("stage_c.training.caption_dropout", 0.5),
    ],
)
def test_a_change_of_what_is_trained_is_named(started, key: str, value: object) -> None:
    folder, settings = started
    check_unchanged(folder, settings, "c")
    with pytest.raises(TrainingError, match=rf"another config: {key} was .* and is .*--allow"):
        check_unchanged(folder, changed(settings, key, value), "c")


def test_a_section_that_was_not_there_is_a_change(started) -> None:
    folder, settings = started
    pretraining = {"images": 8}
    with pytest.raises(TrainingError, match=r"stage_c.pretraining was None and is \{'images': 8"):
        check_unchanged(folder, changed(settings, "stage_c.pretraining", pretraining), "c")


def test_a_key_of_an_earlier_version_is_a_change(started) -> None:
    """Its value cannot be compared with that of the key which took its place."""
    folder, settings = started
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("test_fraction:", "test_share:"))
    with pytest.raises(TrainingError, match=r"data.test_share was 0.2 and is 'not a key of this"):
        check_unchanged(folder, settings, "c")


def test_sections_that_a_stage_does_not_read_may_change(started) -> None:
    folder, settings = started
    others = changed(settings, "compressor.depth", 0.5)
    check_unchanged(folder, others, "c")
    check_unchanged(folder, others, "a")
    with pytest.raises(TrainingError, match=r"compressor.depth was 0.1 and is 0.5"):
        check_unchanged(folder, others, "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stage_c.training.images", 960),
        ("stage_c.training.learning_rate", 1e-5),
        ("stage_c.training.validate_every", 1),
        ("stage_c.training.gradient_accumulation", 2),
        ("data.path", "elsewhere"),
        ("data.cache_gib", 0.0),
        ("stage_b.training.max_grad_norm", 3.0),
        ("name", "another"),
    ],
)
def test_how_long_how_fast_and_where_may_change(started, key: str, value: object) -> None:
    folder, settings = started
    check_unchanged(folder, changed(settings, key, value), "c")


def test_a_run_that_has_not_started_may_have_any_config(started) -> None:
    folder, settings = started
    shutil.rmtree(folder / "checkpoints")
    check_unchanged(folder, changed(settings, "seed", 7), "c")


def test_a_damaged_config_is_named(started) -> None:
    folder, settings = started
    (folder / "config.yaml").write_text("[1, 2")
    with pytest.raises(TrainingError, match=r"config.yaml: expected the config"):
        check_unchanged(folder, settings, "c")


def test_images_may_move_but_not_become_others(started, images: Path, tmp_path: Path) -> None:
    run, settings = started

    def digest(folder: Path) -> str:
        data = settings.data.model_copy(update={"path": str(folder)})
        return open_pairs(data)[0].digest(dated=False)

    (run / "data.json").write_text(json.dumps({"digest": digest(images)}))
    moved = Path(shutil.copytree(images, tmp_path / "moved", copy_function=shutil.copy))
    check_same_data(run, digest(moved))
    caption = next(iter(sorted(moved.glob("*.txt"))))
    caption.write_text("something else")
    with pytest.raises(TrainingError, match=r"other images or captions than data.path has now"):
        check_same_data(run, digest(moved))
    shutil.rmtree(run / "checkpoints")
    check_same_data(run, digest(moved))


def test_a_finished_stage_says_that_its_config_changed(
    trained: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(images, trained)
    with caplog.at_level("WARNING", logger="wuerstchen"):
        training_run.train(settings, "a")
        assert not caplog.records
        training_run.train(changed(settings, "stage_a.training.commitment_weight", 0.5), "a")
    assert "Stage a is not trained again" in caplog.text
    assert "stage_a.training.commitment_weight was 0.25 and is 0.5" in caplog.text


def test_no_checkpoint_holds_work_that_the_receipt_has_not(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a process is killed after a checkpoint, its images were written down before."""
    settings, seen = config(images, tmp_path / "model"), []
    save = Checkpoints.save

    def noted(self: Checkpoints, tensors: dict[str, Tensor], facts: Progress) -> None:
        save(self, tensors, facts)
        (phase,) = read_phases(settings.folder)
        seen.append((facts["images"], phase.work["training"].images))

    monkeypatch.setattr(Checkpoints, "save", noted)
    training_run.train(settings, "a")
    assert len(seen) > 3 and all(held == told for held, told in seen)


def test_the_command_refuses_and_resumes_when_told(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    shutil.rmtree(folder / "runs/c")
    words = ("train", write_config(images, folder), "--stage", "c")
    process = start(*words)
    checkpoint = folder / "runs/c/checkpoints" / f"{32:012d}"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    other = (*words, "stage_c.training.caption_dropout=0.9")
    refused = run(*other)
    assert refused.returncode == 2
    assert "stage_c.training.caption_dropout was 0.05 and is 0.9" in refused.stderr
    assert checkpoint.exists(), "nothing was lost"
    assert run(*other, "--allow-changes").returncode == 0


def test_the_images_and_the_rate_of_a_finished_stage_are_compared_too(
    trained: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They may change during a run, but a finished one does not train on."""
    settings = config(images, trained)
    for key, value in (
        ("stage_a.training.images", 192),
        ("stage_a.training.learning_rate", 1e-5),
        ("stage_a.training.export", "best"),
    ):
        caplog.clear()
        training_run.train(changed(settings, key, value), "a")
        assert f"Stage a is not trained again, though its config changed: {key} was" in caplog.text
    caplog.clear()
    training_run.train(changed(settings, "stage_a.training.gradient_accumulation", 2), "a")
    training_run.train(changed(settings, "data.cache_gib", 1.0), "a")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_finished_stage_says_that_the_data_changed(
    trained: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    shutil.rmtree(folder / "runs" / "c")
    other = Path(shutil.copytree(images, tmp_path / "images"))
    next(iter(sorted(other.glob("*.txt")))).write_text("something else")
    short = changed(config(other, folder), "stage_c.training.images", 4)
    training_run.train(short, "c")
    assert "images or captions changed" not in caplog.text, "only stage c was asked for"
    shutil.rmtree(folder / "runs" / "c")
    training_run.train(short)
    for stage in "ab":
        assert f"Stage {stage} is not trained again, though its images or" in caplog.text


def test_a_key_that_the_config_of_a_run_lacks_counts_with_its_default(started) -> None:
    """It is of a later version, or the file was truncated."""
    folder, settings = started
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0\n", ""))
    check_unchanged(folder, settings, "c")
    with pytest.raises(TrainingError, match="seed was 0 and is 7"):
        check_unchanged(folder, changed(settings, "seed", 7), "c")


@pytest.mark.parametrize("content", [None, "", "[1, 2", "1", "&a [*a]", b"\xff\xfe", "[" * 9999])
def test_a_config_that_is_not_one_is_named(started, content: str | bytes | None) -> None:
    folder, settings = started
    path = folder / "config.yaml"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainingError, match=r"config.yaml: expected the config of .*--allow-chang"):
        check_unchanged(folder, settings, "c")


@pytest.mark.parametrize("content", ["", "[]", '{"digest": "ab', b"\xff\xfe"])
def test_a_damaged_report_of_the_data_is_named(started, content: str | bytes) -> None:
    folder, _ = started
    (folder / "data.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainingError, match=r"data.json: expected the report .*--allow-changes"):
        check_same_data(folder, "ab")


@pytest.mark.parametrize("content", ["", "[]", '{"images": 96', "\0"])
def test_a_finished_stage_with_a_damaged_note_stays_finished(
    trained: Path, images: Path, tmp_path: Path, content: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    (folder / "runs" / "a" / "finished.json").write_text(content)
    assert training_run.train(config(images, folder), "a") == folder
