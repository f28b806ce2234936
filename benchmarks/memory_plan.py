"""The peak of a training step as planned and as measured, side by side.

`python -m benchmarks.memory_plan` measures every case below on the CPU, each in a process of its
own, and prints a table. `--case NAME` is such a process; it prints the measured bytes.

Measured is what torch's allocator handed out at once, told by the profiler, from before the
networks are made to the end of the second step, when the optimizer's moments are there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile

from benchmarks.records import ROOT
from wuerstchen import weights
from wuerstchen.config import Config, parse
from wuerstchen.data import Batch, Pairs
from wuerstchen.inference.model_info import ModelInfo
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import small_text_encoder
from wuerstchen.planning.blank import with_base_sizes
from wuerstchen.planning.dry_run import DryRun
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import Layout, Memory, step_memory
from wuerstchen.training.build import Files, build_stage
from wuerstchen.training.frozen import FrozenStages, StageBText
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import RunName, Stage, TrainState
from wuerstchen.training.stage_b import StageBTrainer
from wuerstchen.training.stage_c import StageCTrainer
from wuerstchen.training.train_step import TrainStep

MIB = 2**20

CAPTIONS = ("a red fox", "two blue birds", "a cat")


@dataclass(frozen=True)
class Case:
    """A training step."""

    stage: RunName
    batch: int
    size: int
    bf16: bool = False
    checkpointing: bool = False
    accumulate: int = 1
    width: int = 1
    """Multiplies the widths of the networks."""
    lora: bool = False
    """Of every layer, around a model that was saved before."""


CASES = {
    "a, small": Case("a", batch=8, size=128),
    "a, bf16": Case("a", batch=16, size=128, bf16=True, width=2),
    "b, small": Case("b", batch=8, size=128),
    "b, middle": Case("b", batch=4, size=256, width=3),
    "b, bf16": Case("b", batch=8, size=128, bf16=True, width=3),
    "b, checkpoints": Case("b", batch=8, size=256, checkpointing=True, width=3),
    "c, small": Case("c", batch=32, size=256),
    "c, middle": Case("c", batch=16, size=512, width=3),
    "c, bf16": Case("c", batch=16, size=512, bf16=True, width=3),
    "c, checkpoints": Case("c", batch=32, size=512, checkpointing=True, width=2),
    "b, lora": Case("b", batch=4, size=256, width=3, lora=True),
    "c, lora": Case("c", batch=16, size=512, width=3, lora=True),
    "c, accumulated": Case("c", batch=64, size=256, accumulate=4, width=3),
}


def config_of(case: Case, base: str = "") -> Config:
    """The config of a case; the other stages are small.

    base  a model folder of these sizes, around which the case's LoRA goes
    """
    training = {
        "images": 1000,
        "batch_size": case.batch,
        "gradient_accumulation": case.accumulate,
        "precision": "bf16" if case.bf16 else "fp32",
    }
    blocks = {"gradient_checkpointing": case.checkpointing}
    wide = {stage: case.width if stage == case.stage else 1 for stage in "abc"}
    widths = (32 * wide["b"], 64 * wide["b"])
    changes: dict[str, dict[str, object]] = {"a": {}, "b": {}, "c": {}}
    if base:
        changes[case.stage]["lora"] = {"rank": 8, "layers": "all"}
        changes["b"]["freeze_compressor"] = True
    return parse(
        {
            "base": base,
            "data": {"size": case.size},
            "text": {"vocab_size": 520, "max_length": 16, "width": 64, "depth": 2, "heads": 2},
            "compressor": {"channels": 16, "width": 0.5, "depth": 0.34},
            "stage_a": {
                "model": {"width": 64 * wide["a"], "depth": 4, "codebook": 512},
                "training": {
                    **training,
                    "crop_size": 64,
                    "adversarial_start": 0,
                    "discriminator_width": 16,
                    "discriminator_depth": 4,
                },
            },
            "stage_b": {
                "model": {
                    "widths": widths,
                    "blocks": (2, 4),
                    "heads": (0, 2),
                    "semantics": (False, True),
                    "condition_width": 64,
                    "text_width": 64,
                },
                "training": {
                    **training,
                    **blocks,
                    "text_conditioning": False,
                    **changes["b"],
                },
            },
            "stage_c": {
                "model": {"width": 128 * wide["c"], "depth": 6, "heads": 4, "text_width": 64},
                "training": {**training, **blocks, **changes["c"]},
            },
        },
        "memory_plan",
    )


@contextmanager
def started(case: Case) -> Iterator[Config]:
    """The config of a case; with a LoRA there is a model of its sizes, while this is entered."""
    config = config_of(case)
    if not case.lora:
        yield config
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = small_text_encoder(config.text, CAPTIONS)
        weights.stage_a.save(folder, StageA(config.stage_a.model))
        weights.compressor.save(folder, Compressor(config.compressor))
        weights.stage_b.save(folder, StageB(config.stage_b.model))
        weights.stage_c.save(folder, StageC(config.stage_c.model))
        weights.text_b.save(folder, text)
        weights.text_c.save(folder, text)
        yield config_of(case, name)


def planned(case: Case) -> Memory:
    """The peak as the plan has it, for a CPU and images that were encoded before."""
    with started(case) as config:
        encoded = config.data.model_copy(update={"latent_cache": "before"})
        sized = with_base_sizes(config.model_copy(update={"data": encoded}))
        run = DryRun(case.stage, sized)
    micro = case.batch // case.accumulate
    setting = Setting("cpu", case.bf16)
    return step_memory(run, setting, Layout(1, sharded=False), micro, case.accumulate)


def measured(name: str) -> int:
    """The peak in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.memory_plan", "--case", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])


def measure_here(case: Case) -> int:
    """Two real training steps on random images; the most bytes that were handed out at once."""
    with started(case) as config:
        return _measure(case, config)


def _measure(case: Case, config: Config) -> int:
    accelerator = Accelerator(mixed_precision="bf16" if case.bf16 else "no", cpu=True)
    images = torch.rand(case.batch, 3, case.size, case.size)
    captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(case.batch)]
    batch = Batch(images, captions, captions, list(range(case.batch)))
    # Its first use starts threads and libraries, which is no part of a step.
    torch.nn.Conv2d(3, 8, 3)(images[:1]).mean().backward()
    with tempfile.TemporaryDirectory() as folder:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            stage = trainer(case.stage, config)
            optimizers = Optimizers(stage, accelerator)
            run_log = RunLog(Path(folder) / "run", writes=True)
            steps = TrainStep(stage, optimizers, run_log, accelerator, seed=0)
            for step in range(2):
                steps.run(batch, TrainState(step + 100, step * case.batch))
        run_log.close()
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    totals = [e["args"]["Total Allocated"] for e in events if e["name"] == "[memory]"]
    return int(max(totals))


def trainer(name: str, config: Config) -> Stage:
    """The trainer of a stage, with new networks below it."""
    files = Files(config, cast(Pairs, None))  # which only validation and exports need
    parts = files.parts
    if name == "a":
        return build_stage("a", files)
    stage_a = StageA(config.stage_a.model)
    text_b = StageBText(None, config.text.max_length, config.stage_b.model.text_width)
    if name == "b":
        compressor, stage_b = files.compressor(parts.compressor), files.stage_b(parts.stage_b)
        return StageBTrainer(config, stage_a, compressor, stage_b, text_b)
    stage_b, compressor = StageB(config.stage_b.model), Compressor(config.compressor)
    frozen = FrozenStages(stage_a, stage_b, compressor, text_b, config.data.cache_gib)
    text = small_text_encoder(config.text, CAPTIONS).requires_grad_(parts.trains_text)
    stage_c = files.stage_c(parts.stage_c)
    stage_c.hold_divisor()
    return StageCTrainer(config, frozen, text, stage_c, ModelInfo())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_plan")
    parser.add_argument("--case", choices=CASES)
    words = parser.parse_args()
    if words.case is not None:
        print(measure_here(CASES[words.case]))
        return
    print("| step | planned MiB | measured MiB | planned / measured |")
    print("|---|---:|---:|---:|")
    for name, case in CASES.items():
        plan, found = planned(case).total / MIB, measured(name) / MIB
        print(f"| {name} | {plan:.0f} | {found:.0f} | {plan / found:.3f} |", flush=True)


if __name__ == "__main__":
    main()
