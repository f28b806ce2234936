"""Peak memory of networks and pipelines, each measured in a process of its own.

`python -m benchmarks.memory SYSTEM PART SIDE` is such a process; it prints one line of JSON.
"""

import argparse
import json
from importlib import import_module

import torch
from torch import nn

from benchmarks.jobs import Job, any_call, build, dtype_of, rows_of
from benchmarks.networks import PUBLISHED, STAGES, TINY
from benchmarks.process import resident_peak, run_module
from benchmarks.records import Peak
from benchmarks.schedules import Schedule
from benchmarks.whole import pipeline_alone

SHORT = Schedule("2 + 1", 2, 0, 1)
"""More steps need no more memory."""


def measure_memory(job: Job, devices: tuple[tuple[str, str], ...] = (("cpu", "float32"),)) -> None:
    """Every network and, on the CPU, the whole pipeline, ours and diffusers', at every side."""
    for device, dtype in devices:
        for part in (*STAGES, "whole") if device == "cpu" else STAGES:
            for side in job.sides:
                for system in ("ours", "diffusers"):
                    known = {"system": system, "part": part, "device": device, "dtype": dtype}
                    if not job.done("peak", side=side, **known):
                        job.keep(_in_process(system, part, side, job.sizes.name, device, dtype))


def _in_process(system: str, part: str, side: int, sizes: str, device: str, dtype: str) -> Peak:
    options = ["--sizes", sizes, "--device", device, "--dtype", dtype]
    found = json.loads(run_module("benchmarks.memory", system, part, str(side), *options))
    what = {"system": system, "part": part, "side": side, "device": device, "dtype": dtype}
    return Peak.model_validate({**what, **found})


@torch.inference_mode()
def _measure(options: argparse.Namespace) -> dict[str, int]:
    sizes = TINY if options.sizes == "tiny" else PUBLISHED
    device, dtype = torch.device(options.device), dtype_of(options.dtype)
    _load_code(options.system)
    before = resident_peak() if device.type == "cpu" else 0
    if options.part == "whole":
        generate, networks = pipeline_alone(options.system, sizes)
        modules: list[nn.Module] = list(networks.values())
        generate(SHORT, options.side, "pt")
    else:
        network = build(options.system, options.part, sizes, device=options.device).to(dtype)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # of the weights in fp32
        modules = [network]
        rows = rows_of(options.part)[0]
        any_call(options.system, options.part, network, sizes, options.side, rows).step()
    weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_peak()
    return {"before": before, "weights": weights, "peak": peak}


def _load_code(system: str) -> None:
    """Load all code that the measurement runs, so that it does not count as the network's."""
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
    print(json.dumps(_measure(parser.parse_args())))


if __name__ == "__main__":
    main()
