"""Several processes train the model that one trains, and none of them goes on alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from small_runs import ENVIRONMENT, config, run, run_together, weights_of

import wuerstchen.config
from wuerstchen import weights
from wuerstchen.training import run as training_run
from wuerstchen.training.run import StageName

ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


TAKEN_BACK = ("down_blocks.1.bias", "down_blocks.3.1.running_mean")
"""Of Stage A: a bias whose gradient is rounding alone, since the mean of a BatchNorm takes back
what it adds; Adam makes steps of it all the same. What both make of an image is compared too."""


def launch(count: int, launcher: str) -> tuple[str, ...]:
    """The command in `count` processes, as people start them."""
    if launcher == "torchrun":
        return (sys.executable, *TORCHRUN, f"--nproc_per_node={count}", "-m", "wuerstchen")
    return (sys.executable, *ACCELERATE, "--num_processes", str(count), "-m", "wuerstchen")


def prepared(trained: Path, folder: Path, stage: str) -> Path:
    """The trained model without this stage and those after it."""
    shutil.copytree(trained, folder)
    for later in "abc"["abc".index(stage) :]:
        shutil.rmtree(folder / "runs" / later)
    return folder


def changes(stage: str, images: int) -> list[str]:
    """Of the small config: a log entry at each step that is compared."""
    words = (f"images={images}", "warmup_steps=20", "log_every=1")
    return [f"stage_{stage}.training.{word}" for word in words]


def errors(folder: Path, stage: str) -> list[float]:
    """The loss curve of a run, at the steps that it logged, and what was held out."""
    log = (folder / "runs" / stage / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in log]
    return [entry[key] for entry in entries for key in ("error", "held_out") if key in entry]


@torch.no_grad()
def redrawn(folder: Path) -> torch.Tensor:
    """What Stage A makes of noise."""
    stage_a = weights.stage_a.load(folder).eval()
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    made: torch.Tensor = stage_a.decode(stage_a.encode(noise))
    return made


def train_here(source: Path, stage: StageName, *words: str) -> Path:
    return training_run.train(wuerstchen.config.load(str(source), list(words)), stage)


def written(images: Path, folder: Path) -> Path:
    source = folder.with_suffix(".yaml")
    source.write_text(wuerstchen.config.dump(config(images, folder)))
    return source


@pytest.mark.parametrize(
    ("stage", "total", "processes", "words", "tolerance", "launcher"),
    [
        pytest.param("a", 88, 2, [], 1e-4, "", marks=pytest.mark.slow),  # 20 steps, codes, 2 steps
        pytest.param("b", 16, 2, [], 1e-4, "", marks=pytest.mark.slow),
        pytest.param("b", 16, 4, ["sharded=true"], 1e-4, "", marks=pytest.mark.slow),
        pytest.param("c", 24, 2, [], 1e-5, "accelerate", marks=pytest.mark.slow),
        pytest.param("c", 24, 2, ["optimizer=muon"], 1e-4, "", marks=pytest.mark.slow),
        ("c", 24, 2, ["sharded=true"], 1e-5, ""),
        pytest.param("c", 24, 4, ["sharded=true"], 1e-5, "", marks=pytest.mark.slow),
        pytest.param(
            *("c", 24, 2, ["sharded=true", "gradient_checkpointing=true"], 1e-5, ""),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("c", 24, 2, ["sharded=true", "gradient_accumulation=2"], 1e-5, ""),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_several_processes_train_the_same_model(
    trained: Path,
    images: Path,
    tmp_path: Path,
    stage: StageName,
    total: int,
    processes: int,
    words: list[str],
    tolerance: float,
    launcher: str,
) -> None:
    """Each with its part of the batch, by DDP and by FSDP2: the loss curve of one process."""
    one, several = (prepared(trained, tmp_path / name, stage) for name in ("one", "several"))
    source = written(images, several)
    settings = changes(stage, total)
    extra = [f"stage_{stage}.training.{word}" for word in words]
    of_both = [word for word in extra if "optimizer" in word]
    train_here(source, stage, *settings, *of_both, f"output={one}")
    settings += extra
    told = ("train", source, "--stage", stage, *settings)
    if launcher:
        done = run(*told, command=launch(processes, launcher))
    else:
        done = run_together(processes, *told)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{several}\n", "the first process alone talks"
    assert len(errors(one, stage)) > total // 4
    np.testing.assert_allclose(errors(several, stage), errors(one, stage), rtol=tolerance)
    found, expected, start = weights_of(several), weights_of(one), weights_of(trained)
    assert any((expected[key] != start[key]).any() for key in expected)
    for key, tensor in expected.items():
        if not key.endswith(TAKEN_BACK):
            np.testing.assert_allclose(
                found[key], tensor, atol=tolerance, rtol=tolerance, err_msg=key
            )
    torch.testing.assert_close(redrawn(several), redrawn(one), atol=tolerance, rtol=tolerance)


LEFT = '''
"""Train, and tell whether the interpreter goes down in the usual way afterwards."""
import atexit
from wuerstchen.cli import main

atexit.register(print, "the interpreter goes down")
main()
'''


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "seen"), [(1, True), (2, False)])
def test_several_processes_end_before_threads_of_theirs_could_abort_them(
    trained: Path, images: Path, tmp_path: Path, processes: int, seen: bool
) -> None:
    """One that drops a tensor after the interpreter is gone turns a finished run into a failed."""
    script = tmp_path / "left.py"
    script.write_text(LEFT)
    model = prepared(trained, tmp_path / "model", "c")
    words = ("--stage", "c", *changes("c", 8), "stage_c.training.sharded=true")
    launched = (sys.executable, *TORCHRUN, f"--nproc_per_node={processes}", str(script))
    ended = run("train", written(images, model), *words, command=launched)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == str(model)
    assert ("the interpreter goes down" in ended.stdout) is seen
    assert "Warning" not in ended.stderr, "of libraries, of which nobody can make use"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "sharded"), [(2, 1, True), (1, 4, True), (4, 2, True), (2, 1, False)]
)
def test_another_number_of_processes_resumes_a_run(
    trained: Path, images: Path, tmp_path: Path, before: int, after: int, sharded: bool
) -> None:
    """Same images, same losses: checkpoints are laid out anew for who reads them."""
    one, several = (prepared(trained, tmp_path / name, "c") for name in ("one", "several"))
    source = written(images, several)
    train_here(source, "c", *changes("c", 96), f"output={one}")
    words = ["train", source, "--stage", "c", f"stage_c.training.sharded={sharded}"]
    words += [*changes("c", 96), "stage_c.training.checkpoint_every=8"]
    killed_at(24, several, warm.start_together(before, *words, environment=ENVIRONMENT))
    done = run_together(after, *words)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(errors(several, "c"), errors(one, "c"), rtol=1e-5)
    found, expected = weights_of(several), weights_of(one)
    for key, tensor in expected.items():
        np.testing.assert_allclose(found[key], tensor, atol=1e-5, rtol=1e-5, err_msg=key)


def killed_at(images: int, folder: Path, processes: Sequence[warm.Command]) -> None:
    """Kill all processes of a training of Stage C after its checkpoint at `images`."""
    checkpoint = folder / "runs" / "c" / "checkpoints" / f"{images:012d}"
    while not checkpoint.exists() and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    for process in processes:
        process.kill()
    outputs = [process.communicate() for process in processes]
    assert all(process.returncode == -signal.SIGKILL for process in processes), outputs
    assert not (folder / "runs" / "c" / "finished.json").exists()


def children(parent: int) -> list[int]:
    """Processes that a launcher has started."""
    listed = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True)
    return [int(line) for line in listed.stdout.split()]


@pytest.mark.slow
def test_a_lost_process_stops_the_others_and_the_restart_resumes(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    one, several = (prepared(trained, tmp_path / name, "c") for name in ("one", "several"))
    source = written(images, several)
    settings = [*changes("c", 160), "stage_c.training.checkpoint_every=8"]
    train_here(source, "c", *settings, f"output={one}")
    (interpreter, *words) = launch(2, "torchrun")
    command = [interpreter, *words[:3], "--max-restarts=1", *words[3:]]
    with subprocess.Popen(
        [*command, "train", source, "--stage", "c", *settings],
        env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "lo"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        checkpoints = several / "runs" / "c" / "checkpoints"
        while not list(checkpoints.glob("0*24")) and process.poll() is None:
            time.sleep(0.01)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait() == 0, told
    assert "exitcode: -9" in told or "Signal 9" in told or "SIGKILL" in told, told
    found, expected = weights_of(several), weights_of(one)
    for key, tensor in expected.items():
        np.testing.assert_allclose(found[key], tensor, atol=1e-5, rtol=1e-5, err_msg=key)
