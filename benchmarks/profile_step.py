"""Profile one network call: `python -m benchmarks.profile_step stage_b --size 1024`.

Prints the operators by their own time; `--out FOLDER` also writes the table for the report.
"""

import argparse
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.jobs import any_call, build, dtype_of, rows_of
from benchmarks.networks import PUBLISHED, STAGES, TINY
from wuerstchen.atomic_write import write_file

LINES = 25
"""Operators shown."""


@torch.inference_mode()
def table(system: str, part: str, side: int, sizes: str, device: str, dtype: str) -> str:
    """One warm call of the network under the profiler."""
    known = TINY if sizes == "tiny" else PUBLISHED
    network = build(system, part, known).to(device=torch.device(device), dtype=dtype_of(dtype))
    call = any_call(system, part, network, known, side, rows_of(part)[0])
    call.step()
    on_cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities, record_shapes=True) as seen:
        call.step()
    by = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    title = f"{system}, {part}, {side} pixels, {sizes} size, {device}, {dtype}"
    return f"{title}\n{seen.key_averages().table(sort_by=by, row_limit=LINES)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step")
    parser.add_argument("part", choices=STAGES)
    parser.add_argument("--size", type=int, default=1024, help="pixels per side")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--ours", dest="system", action="store_const", const="ours")
    whose.add_argument("--diffusers", dest="system", action="store_const", const="diffusers")
    parser.add_argument("--quick", action="store_true", help="a tiny network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, help="folder for profile-PART-SIZE-SYSTEM.txt")
    options = parser.parse_args(arguments)
    system = options.system or "ours"
    sizes = "tiny" if options.quick else "published"
    text = table(system, options.part, options.size, sizes, options.device, options.dtype)
    print(text)
    if options.out:
        name = f"profile-{options.part}-{options.size}-{system}.txt"
        write_file(options.out / name, text.encode())


if __name__ == "__main__":
    main()
