"""Records of measurements as JSON: one file per section, rewritten after every measurement."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from wuerstchen.atomic_write import write_file

ROOT = Path(__file__).parents[1]


class Run(BaseModel):
    """Date, code, machine and versions of a run."""

    model_config = ConfigDict(frozen=True)
    date: str
    commit: str
    """With a `+` if the code had uncommitted changes."""
    networks: str
    """published or tiny."""
    cpu: str
    threads: int
    memory_gib: float
    accelerator: str
    driver: str = ""
    """Of the accelerator."""
    python: str
    torch: str
    diffusers: str


class Record(BaseModel):
    model_config = ConfigDict(frozen=True)
    run: int = 0
    """Index into the runs of the file."""


class Times(Record):
    """Seconds of one call: all samples in order."""

    kind: Literal["times"] = "times"
    system: str
    part: str
    call: str
    """`step`, `prepare`, or the schedule of a whole image."""
    side: int
    rows: int
    device: str = "cpu"
    dtype: str = "float32"
    mode: str = "eager"
    seconds: list[float]
    load: float = 0.0
    """Load average of the minute before."""


class Count(Record):
    """Floating-point operations of one call."""

    kind: Literal["count"] = "count"
    system: str
    part: str
    call: str
    side: int
    rows: int
    flops: int


class Difference(Record):
    """Largest absolute difference between our output and diffusers'."""

    kind: Literal["difference"] = "difference"
    what: str
    side: int
    device: str = "cpu"
    dtype: str = "float32"
    largest: float
    scale: float
    """Largest absolute value of diffusers' output."""


class Peak(Record):
    """Peak memory in bytes of a process that ran one call."""

    kind: Literal["peak"] = "peak"
    system: str
    part: str
    side: int
    device: str = "cpu"
    dtype: str = "float32"
    before: int
    """With all code loaded, before a network is built; 0 on an accelerator."""
    weights: int
    peak: int


VALUES = {"run", "seconds", "load", "flops", "largest", "scale", "before", "weights", "peak"}
"""Measured fields; the others identify the measurement."""

Measured = Times | Count | Difference | Peak


class Results(BaseModel):
    """The content of a section's file."""

    runs: list[Run] = []
    records: list[Annotated[Measured, Field(discriminator="kind")]] = []


class Store:
    """The file of one section; a new record replaces the older one of the same measurement."""

    def __init__(self, path: Path, networks: str) -> None:
        self.path = path
        self.results = read(path)
        self.results.runs.append(this_run(networks))

    def add(self, record: Measured) -> None:
        """Add a record and write the file."""
        new = record.model_copy(update={"run": len(self.results.runs) - 1})
        kept = [old for old in self.results.records if _of(old) != _of(new)]
        self.results.records = [*kept, new]
        write_file(self.path, (_without_unused_runs(self.results) + "\n").encode())

    def has(self, kind: str, **fields: str | int) -> bool:
        """Whether there is a record with these fields."""
        return any(
            record.kind == kind and all(getattr(record, k) == v for k, v in fields.items())
            for record in self.results.records
        )


def read(path: Path) -> Results:
    """A file's content, or empty results if there is no file."""
    return Results.model_validate_json(path.read_bytes()) if path.is_file() else Results()


def this_run(networks: str) -> Run:
    """The machine and the versions of this process."""
    import psutil

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return Run(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        networks=networks,
        cpu=_cpu(),
        threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        accelerator=gpu,
        driver=_driver() if gpu else "",
        python=platform.python_version(),
        torch=torch.__version__,
        diffusers=version("diffusers"),
    )


def load() -> float:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def _without_unused_runs(results: Results) -> str:
    used = sorted({record.run for record in results.records})
    place = {old: new for new, old in enumerate(used)}
    return Results(
        runs=[results.runs[index] for index in used],
        records=[r.model_copy(update={"run": place[r.run]}) for r in results.records],
    ).model_dump_json(indent=1)


def _of(record: Measured) -> dict[str, object]:
    return record.model_dump(exclude=VALUES)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    found = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return next(iter(found.splitlines()), "")


def _commit() -> str:
    """Of this code; a copy without its history is told by the variable COMMIT."""
    changed = _output_of("git", "status", "--porcelain", "--", "src", "benchmarks")
    found = _output_of("git", "rev-parse", "--short=12", "HEAD")
    return os.environ.get("COMMIT") or (found or "unknown") + ("+" if changed else "")


def _output_of(*command: str) -> str:
    """What a command prints; empty if it fails or is not installed."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
