"""The records of benchmarks/device/training.py, and the page that compares them with plans."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.records import Run
from benchmarks.tables import digits, machine, save_page, table
from wuerstchen.config import Config, load
from wuerstchen.hardware import DEVICES, GIB, Device
from wuerstchen.planning.assumptions import UTILISATION
from wuerstchen.planning.blank import with_base_sizes
from wuerstchen.planning.dry_run import DryRun
from wuerstchen.planning.estimate import rate
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import Layout, step_memory
from wuerstchen.planning.trace import added

TINY = (
    *("data.size=128", "compressor.width=0.25", "compressor.depth=0.1"),
    *("stage_a.model.width=16", "stage_a.model.depth=1", "stage_b.model.widths=[8,16]"),
    *("stage_b.model.blocks=[1,1]", "stage_b.model.heads=[0,2]"),
    *("stage_b.model.semantics=[false,true]", "stage_b.model.text_width=32"),
    *("stage_c.model.width=16", "stage_c.model.depth=1", "stage_c.model.heads=2"),
    "stage_c.model.text_width=32",
)
TINY_TEXT = (
    *("text.pretrained=", "text.pretrained_b=", "text.width=32", "text.heads=2"),
    "stage_b.training.text_conditioning=false",
)
"""For plans, which know the sizes of published text encoders only."""


class Case(BaseModel):
    """A stage of a config, with a batch that is split as its plan for the device has it."""

    model_config = ConfigDict(frozen=True)
    config: str
    stage: Literal["b", "c"]
    micro: int
    accumulation: int
    tiny: bool = False

    @property
    def name(self) -> str:
        return f"{self.config}-{self.stage}"

    def load(self, *changes: str) -> Config:
        """Its config."""
        section = f"stage_{self.stage}.training"
        batch = f"{section}.batch_size={self.micro * self.accumulation}"
        split = f"{section}.gradient_accumulation={self.accumulation}"
        tiny = TINY if self.tiny else ()
        return load(self.config, ["data.latent_cache=cache", batch, split, *tiny, *changes])


class Measured(BaseModel):
    """A case on a device."""

    case: Case
    micro: int
    """Smaller than in the case if memory ran out."""
    seconds: list[float]
    """Of every timed step."""
    flops: float
    """Of a step, with what checkpoints recompute."""
    peak: int
    """Most bytes that torch's allocator handed out at once; on a CPU, those of the process."""
    reserved: int
    """Most bytes that the allocator held."""
    error: float
    """The loss of the last step, to see that it is finite."""

    @property
    def images(self) -> int:
        return self.case.micro * self.case.accumulation

    @property
    def per_second(self) -> float:
        """Images."""
        return self.images * len(self.seconds) / sum(self.seconds)


class Training(BaseModel):
    """The content of training.json."""

    run: Run
    cases: list[Measured] = []
    failed: dict[str, str] = {}


def write_page(out: Path) -> Path:
    """training.md from training.json, with the plan of every case: a minute on a CPU."""
    content = Training.model_validate_json((out / "training.json").read_bytes())
    device = find_board(content.run.accelerator)
    rows = [_row(each, device) for each in content.cases]
    header = ("case", "batch", "images per s", f"planned at {UTILISATION:.0%}", "TFLOP per image")
    more = ("planned", "of peak", "without recomputation", "peak GiB", "planned", "ratio")
    run = content.run
    lines = [
        f"{run.accelerator or 'No accelerator'}, driver {run.driver or '-'}; {machine(run)}.\n",
        "`of peak`: operations per second over the device's peak in bf16, as `--mfu` of "
        "`wuerstchen plan` counts them; `ratio`: measured peak memory over the planned one.\n",
        *table((*header, *more), rows),
        *(f"- {name} failed: {reason}" for name, reason in content.failed.items()),
        "",
    ]
    return save_page(out / "training.md", "Training", "benchmarks.device.training", lines)


def find_board(name: str) -> Device | None:
    """The device whose board has the longest name that is in this one."""
    found = [device for device in DEVICES if device.board.lower() in name.lower()]
    return max(found, key=lambda device: len(device.board), default=None)


def _row(each: Measured, device: Device | None) -> list[str]:
    case = each.case
    split = each.images // each.micro
    cpu = device is None
    setting = Setting("cpu" if cpu else "accelerator", bf16=not cpu)
    run = _dry_run(case)
    memory = step_memory(run, setting, Layout(1, sharded=False), each.micro, split)
    flops = added(list(run.flops(setting).values()))
    kept = _dry_run(case, f"stage_{case.stage}.training.gradient_checkpointing=false")
    once = sum(added(list(kept.flops(setting).values())).values())
    planned = peak = without = "-"
    if device is not None:
        peak = f"{each.flops / each.images * each.per_second / device.bf16:.1%}"
        without = f"{once * each.per_second / device.bf16:.1%}"
        seconds = sum(n / rate(device, kind, UTILISATION) for kind, n in flops.items())
        planned = digits(1 / seconds)
    return [
        case.name,
        f"{split} x {each.micro}",
        digits(each.per_second),
        planned,
        f"{each.flops / each.images / 1e12:.3g}",
        f"{sum(flops.values()) / 1e12:.3g}",
        peak,
        without,
        f"{each.peak / GIB:.2f}",
        f"{memory.total / GIB:.2f}",
        f"{each.peak / memory.total:.3f}",
    ]


@cache
def _dry_run(case: Case, *changes: str) -> DryRun:
    config = case.load(*(TINY_TEXT if case.tiny else ()), *changes)
    return DryRun(case.stage, with_base_sizes(config))
