"""A step of fine-tuning by LoRA for each stage at the published size: seconds and memory.

    python -m benchmarks.fine_tuning [--stages a,b,c] [--out docs/benchmarks]

Our own trainers with random weights of the published sizes, fp32 on the CPU, images of 512
pixels: Stage A with a batch of 4 crops of 128 pixels, Stages B and C with a batch of 1. Rank 4,
around all layers of Stage A and around the attention of the others. Stage C holds Stages A and B
beside it, as in every training, since they draw its looks; its text encoder is a small one. Each
stage is measured in processes of its own, on Linux; the first of its steps is not counted. Peaks
are those of the whole process during the steps: as it is, and where the C library hands back at
once what is freed (MALLOC_MMAP_THRESHOLD_=1000000), which is slower. Planned ones are those of
`wuerstchen plan`, to which about 0.4 GiB of Python and torch come.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple, cast

import torch
from accelerate import Accelerator

from benchmarks.memory_plan import CAPTIONS, trainer
from benchmarks.records import ROOT, Run, this_run
from benchmarks.tables import digits, table
from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.config import (
    CompressorModel,
    Config,
    StageAModel,
    StageBModel,
    StageCModel,
    TextConfig,
    parse,
)
from wuerstchen.data import Batch
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import small_text_encoder
from wuerstchen.planning.blank import with_base_sizes
from wuerstchen.planning.dry_run import DryRun
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import Layout, step_memory
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import RunName, TrainState
from wuerstchen.training.train_step import TrainStep

BATCH = {"a": 4, "b": 1, "c": 1}
SIDE, STEPS, RANK = 512, 2, 4
TEXT = TextConfig(vocab_size=520, max_length=77, width=1280, depth=1, heads=20)
LEAN = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "0"}
CPU, ALONE = Setting("cpu", bf16=False), Layout(1, sharded=False)


class Turn(NamedTuple):
    """What one process measured."""

    stage: str
    learn: int
    """Parameters of the low-rank layers."""
    seconds: float
    """Of a step, the median."""
    peak: int
    """Bytes of the whole process."""
    planned: int


class Row(NamedTuple):
    """A stage as it is, and with memory handed back at once."""

    usual: Turn
    lean: Turn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__)
    parser.add_argument("--stages", default="a,b,c")
    parser.add_argument("--turn", action="store_true", help="one stage here, which prints figures")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks")
    words = parser.parse_args()
    stages = words.stages.split(",")
    if words.turn:
        print(json.dumps(take_turn(stages[0])))
        return
    rows = [Row(_in_a_process(stage), _in_a_process(stage, **LEAN)) for stage in stages]
    content = {"run": this_run("random").model_dump(), "rows": rows}
    write_file(words.out / "fine_tuning.json", json.dumps(content, indent=1).encode())
    print(write_page(words.out))


def take_turn(stage: str) -> Turn:
    """Steps of one stage, in this process."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_start(stage, folder)
        config = _config(stage, folder)
        dry_run = DryRun(cast(RunName, stage), with_base_sizes(config))
        memory = step_memory(dry_run, CPU, ALONE, BATCH[stage], 1)
        seconds, learn = _steps(stage, config, folder)
    return Turn(stage, learn, seconds, _peak(), memory.total)


def _write_start(stage: str, folder: Path) -> None:
    """What the stage starts from, with random weights."""
    if stage == "a":
        weights.stage_a.save(folder, StageA(StageAModel()))
    elif stage == "b":
        weights.compressor.save(folder, Compressor(CompressorModel()))
        weights.stage_b.save(folder, StageB(StageBModel()))
    else:
        weights.stage_c.save(folder, StageC(StageCModel()))
        weights.text_c.save(folder, small_text_encoder(TEXT, CAPTIONS))


def _config(stage: str, folder: Path) -> Config:
    tuned: dict[str, object] = {
        "init_from": str(folder),
        "batch_size": BATCH[stage],
        "precision": "fp32",
        "lora": {"rank": RANK, "layers": "all" if stage == "a" else "attention"},
    }
    if stage == "b":
        tuned |= {"freeze_compressor": True}
    training: dict[str, dict[str, object]] = {"a": {}, "b": {"text_conditioning": False}, "c": {}}
    training[stage] |= tuned
    stages: dict[str, dict[str, object]] = {
        f"stage_{name}": {"training": values} for name, values in training.items()
    }
    if stage != "c":  # nothing of Stage C is built then, but its text has to fit Stage B's
        stages["stage_c"] = {"model": {"text_width": TEXT.width}}
        stages["stage_b"] |= {"model": {"text_width": TEXT.width}}
    return parse({"data": {"size": SIDE}, "text": TEXT.model_dump(), **stages}, "fine-tuning")


def _steps(stage: str, config: Config, folder: Path) -> tuple[float, int]:
    """Seconds of a step and the number of parameters that learn."""
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    count = BATCH[stage]
    captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(count)]
    batch = Batch(torch.rand(count, 3, SIDE, SIDE), captions, captions, list(range(count)))
    network = trainer(stage, config)
    optimizers = Optimizers(network, accelerator)
    run_log = RunLog(folder / "run", writes=True)
    steps = TrainStep(network, optimizers, run_log, accelerator, seed=0)
    seconds = []
    for step in range(STEPS + 1):
        if step == 1:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the beginning
        began = time.perf_counter()
        steps.run(batch, TrainState(step + 1, step * count))
        seconds.append(time.perf_counter() - began)
    run_log.close()
    tuned = network.networks()[network.trained]
    return median(seconds[1:]), sum(p.numel() for p in tuned.parameters() if p.requires_grad)


def _peak() -> int:
    """Bytes that this process held at most, since that was last forgotten."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _in_a_process(stage: str, **environment: str) -> Turn:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.fine_tuning",
            "--turn",
            "--stages",
            stage,
        ],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"stage {stage} ended with {done.returncode}: {done.stderr[-2000:]}")
    turn = Turn(*json.loads(done.stdout.splitlines()[-1]))
    print(turn, flush=True)
    return turn


def write_page(out: Path) -> Path:
    """fine_tuning.md from fine_tuning.json."""
    content = json.loads((out / "fine_tuning.json").read_text())
    run = Run.model_validate(content["run"])
    rows = [
        [
            usual.stage,
            f"{usual.learn:,}",
            f"{BATCH[usual.stage]}",
            digits(usual.seconds),
            *(f"{size / 2**30:.1f}" for size in (usual.peak, lean.peak, usual.planned)),
        ]
        for usual, lean in (map(Turn._make, row) for row in content["rows"])
    ]
    peaks = ("GiB", "GiB, handed back at once", "GiB, planned")
    heads = ("stage", "parameters that learn", "batch", "seconds a step", *peaks)
    lines = [
        "# A step of fine-tuning at the published size, measured\n",
        "Written by `python -m benchmarks.fine_tuning`; its docstring says what is done.\n",
        f"{run.date}, commit {run.commit}, {run.cpu}, {run.threads} threads, torch {run.torch}.\n",
        *table(heads, rows),
    ]
    path = out / "fine_tuning.md"
    write_file(path, "\n".join(lines).encode())
    return path


if __name__ == "__main__":
    main()
