"""A run that was killed and started again ends at the weights of one that never stopped."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from small_runs import run, start, weights_of, write_config

PARTS = {
    "a": ("vqgan",),
    "b": ("compressor", "decoder"),
    "c": ("prior_prior", "prior_text_encoder", "text_encoder"),
}
LATER = {"a": "abc", "b": "bc", "c": "c"}


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("a", marks=pytest.mark.slow),
        pytest.param("b", marks=pytest.mark.slow),
        "c",
    ],
)
def test_kill_and_the_same_command_equal_a_run_without_a_stop(
    trained: Path, pictures: Path, tmp_path: Path, stage: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    for later in LATER[stage]:
        shutil.rmtree(folder / "runs" / later)
        for part in PARTS[later]:
            shutil.rmtree(folder / part)
    words = ("train", write_config(pictures, folder), "--stage", stage)
    moment = random.choice([16, 32, 48])  # pictures; the run sees 96
    process = start(*words)
    checkpoint = folder / "runs" / stage / "checkpoints" / f"{moment:012d}"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.random() / 20)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr and process.stderr.read()
    assert process.stderr is not None
    process.stderr.close()
    assert not (folder / "runs" / stage / "finished.json").exists()

    again = run(*words)
    assert again.returncode == 0, again.stderr
    before, after = weights_of(trained), weights_of(folder)
    assert any(key.startswith(PARTS[stage]) for key in after)
    for key, tensor in after.items():
        assert (tensor == before[key]).all(), f"{key} differs, killed after {moment} pictures"
