"""A run that was killed, however often, ends at the weights of one that never stopped."""

import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_runs import run, start, weights_of, write_config

PARTS = {
    "a": ("vqgan",),
    "b": ("compressor", "decoder"),
    "c": ("prior_prior", "prior_text_encoder", "text_encoder"),
}
KILLS = 4
LATER = {"a": "abc", "b": "bc", "c": "c"}


def in_writing(checkpoints: Path) -> bool:
    """Whether some file of a checkpoint that has no name yet is there."""
    try:
        return any(checkpoints.glob(".*.new/*"))
    except FileNotFoundError:  # it has got its name between two looks
        return False


def killed(folder: Path, stage: str, words: Sequence[object], *, in_a_write: bool) -> bool:
    """Start the command and kill it, at a random step or while a checkpoint is being written.

    Returns whether it was killed; one that was quicker than that has finished.
    """
    checkpoints = folder / "runs" / stage / "checkpoints"
    before = set(checkpoints.glob("0*"))
    with start(*words) as process:
        if in_a_write:
            while not in_writing(checkpoints) and process.poll() is None:
                pass  # a sleep would be longer than the write
        else:
            while set(checkpoints.glob("0*")) <= before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(random.random() / 20)
        process.kill()
        _, told = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), told
    return process.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["a", "b", "c"])
def test_kills_and_the_same_command_equal_a_run_without_a_stop(
    trained: Path, images: Path, tmp_path: Path, stage: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    for later in LATER[stage]:
        shutil.rmtree(folder / "runs" / later)
        for part in PARTS[later]:
            shutil.rmtree(folder / part)
    words = ("train", write_config(images, folder), "--stage", stage)
    counted = sum(killed(folder, stage, words, in_a_write=kill % 2 == 1) for kill in range(KILLS))
    assert counted >= KILLS // 2

    again = run(*words)
    assert again.returncode == 0, again.stderr
    before, after = weights_of(trained), weights_of(folder)
    assert any(key.startswith(PARTS[stage]) for key in after)
    for key, tensor in after.items():
        assert (tensor == before[key]).all(), f"{key} differs after {counted} kills"
