"""Peak memory, each measured in a process of its own, where nothing was freed before.

`python -m benchmarks.memory SYSTEM PART SIDE` is such a process; it prints one line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from benchmarks.jobs import Job, ask_any, build, dtype_of, rows_of
from benchmarks.networks import PUBLISHED, STAGES, TINY
from benchmarks.recipes import Recipe
from benchmarks.records import ROOT, Peak
from benchmarks.whole import alone

BRIEF = Recipe("2 + 1", 2, 0, 1)
"""More steps hold no more memory."""


def measure_memory(job: Job, devices: tuple[tuple[str, str], ...] = (("cpu", "float32"),)) -> None:
    """Every network and, on the CPU, the whole pipeline, ours and diffusers', at every side."""
    for device, dtype in devices:
        for part in (*STAGES, "whole") if device == "cpu" else STAGES:
            for side in job.sides:
                for system in ("ours", "diffusers"):
                    words = {"system": system, "part": part, "device": device, "dtype": dtype}
                    if not job.done("peak", side=side, **words):
                        job.keep(in_process(system, part, side, job.sizes.name, device, dtype))


def in_process(
    system: str, part: str, side: int, sizes: str, device: str = "cpu", dtype: str = "float32"
) -> Peak:
    """Run one measurement as a process and read what it found."""
    words = [system, part, str(side), "--sizes", sizes, "--device", device, "--dtype", dtype]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.memory {' '.join(words)} failed: {done.stderr[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return Peak(
        system=system,
        part=part,
        side=side,
        device=device,
        dtype=dtype,
        before=found["before"],
        weights=found["weights"],
        peak=found["peak"],
    )


def resident_peak() -> int:
    """Most bytes of memory that this process held.

    Linux counts `ru_maxrss` on from the process that started this one; VmHWM starts anew.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@torch.inference_mode()
def _run(words: argparse.Namespace) -> dict[str, int]:
    sizes = TINY if words.sizes == "tiny" else PUBLISHED
    device, dtype = torch.device(words.device), dtype_of(words.dtype)
    _load_code(words.system)
    before = resident_peak() if device.type == "cpu" else 0
    if words.part == "whole":
        draw, networks = alone(words.system, sizes)
        modules: list[nn.Module] = list(networks.values())
        draw(BRIEF, words.side, "pt")
    else:
        network = build(words.system, words.part, sizes).to(device=device, dtype=dtype)
        modules = [network]
        rows = rows_of(words.part)[0]
        asked = ask_any(words.system, words.part, network, sizes, words.side, rows)
        asked.step()
    weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_peak()
    return {"before": before, "weights": weights, "peak": peak}


def _load_code(system: str) -> None:
    """Load all that the measurement runs, so that it is not counted as the network's memory."""
    if system == "diffusers":
        import_module("diffusers.pipelines.deprecated.wuerstchen")
    torch.ones(8, 8) @ torch.ones(8, 8)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("system")
    parser.add_argument("part")
    parser.add_argument("side", type=int)
    parser.add_argument("--sizes", default="published", choices=("published", "tiny"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    print(json.dumps(_run(parser.parse_args())))


if __name__ == "__main__":
    main()
