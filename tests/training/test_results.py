"""What a finished stage left is checked before a later one is trained on it."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import config, values

from wuerstchen.config import parse
from wuerstchen.errors import TrainingError
from wuerstchen.training import run as training_run
from wuerstchen.training.results import check_results, is_finished, record_results


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A model whose Stages A and B are finished."""
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    shutil.rmtree(folder / "runs" / "c")
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "vqgan": (lambda model: flip(model / "vqgan" / "diffusion_pytorch_model.safetensors"), "a"),
    "decoder": (lambda model: flip(model / "decoder" / "diffusion_pytorch_model.safetensors"), "b"),
    "compressor": (lambda model: flip(model / "compressor" / "model.safetensors"), "b"),
    "truncated": (lambda model: os.truncate(model / "compressor" / "model.safetensors", 99), "b"),
    "config": (lambda model: flip(model / "decoder" / "config.json"), "b"),
    "record": (lambda model: flip(model / "runs" / "b" / "SHA256SUMS"), "b"),
    "missing": (lambda model: (model / "decoder" / "config.json").unlink(), "b"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_results_are_refused_and_the_way_out_works(
    model: Path, images: Path, kind: str
) -> None:
    settings = config(images, model)
    check_results(settings, ["c"])
    damage, stage = DAMAGE[kind]
    damage(model)
    record = model / "runs" / stage / "SHA256SUMS"
    with pytest.raises(
        TrainingError, match=rf"Stage {stage} in .* not as it was .*delete {record}"
    ):
        check_results(settings, ["c"])
    check_results(settings, ["a"])  # reads nothing of others
    record.unlink()
    check_results(settings, ["c"])


def test_the_command_refuses_before_any_work(model: Path, images: Path) -> None:
    DAMAGE["compressor"][0](model)
    with pytest.raises(TrainingError, match=r"compressor/model.safetensors changed"):
        training_run.train(config(images, model), "c")
    assert not (model / "runs" / "c").exists()


def test_the_record_is_one_of_sha256sum(model: Path) -> None:
    for stage in "ab":
        command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        subprocess.run(command, cwd=model / "runs" / stage, check=True)


def test_a_pretraining_is_checked_only_by_the_stage_that_reads_it(
    model: Path, images: Path
) -> None:
    plain = values(images, model)
    plain["stage_b"]["pretraining"] = {"images": 4}  # type: ignore[index]
    settings = parse(plain, "here")
    run = model / "runs" / "b-pretraining"
    shutil.copytree(model / "compressor", run / "compressor")
    (run / "finished.json").write_text('{"images": 4}')
    record_results(settings, "b-pretraining")
    assert is_finished(model, "b-pretraining")
    check_results(settings, ["b"])
    flip(run / "compressor" / "model.safetensors")
    check_results(settings, ["c"])
    with pytest.raises(TrainingError, match="Stage b-pretraining in"):
        check_results(settings, ["b"])
