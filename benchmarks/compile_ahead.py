"""Fill the compiler's cache on disk from several processes, so that measuring takes less time.

    python -m benchmarks.compile_ahead SYSTEM BATCH --side 1024 --dtype bfloat16

is such a process: it compiles what the section `accelerator` will compile for a system and a batch
size, and runs it once. Compiling one network keeps one core busy for a minute or two.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import torch

from benchmarks.jobs import Job, dtype_of, rows_of
from benchmarks.networks import PUBLISHED, STAGES, TINY, Sizes, single
from benchmarks.peers import PEERS
from benchmarks.process import run_module
from benchmarks.schedules import our_defaults
from benchmarks.stages import Place, compiled_step
from benchmarks.whole import SHORT, our_pipeline, text_encoders, their_pipeline

SYSTEMS = ("sdxl", "ours", "diffusers", "sd21")
"""The slowest first."""

LIMIT = 240.0
"""Seconds of a process."""


def compile_ahead(job: Job, place: Place) -> None:
    """Compile in `job.ahead` processes for every system, side and batch; none: do nothing."""
    if not job.ahead:
        return
    start = time.monotonic()
    wanted = {*(PEERS if "compiled-peers" in job.measured else ())}
    wanted |= {"ours", "diffusers"} if "images" in job.measured else set()
    with ThreadPoolExecutor(job.ahead) as pool:
        for side, batch, system in product(job.sides, job.batches, SYSTEMS):
            if system in wanted:
                pool.submit(partial(_in_process, system, batch, side, job.sizes.name, place))
    print(f"# compiled ahead in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _in_process(system: str, batch: int, side: int, sizes: str, place: Place) -> None:
    words = [system, str(batch), "--side", str(side), "--dtype", place.dtype]
    words += ["--sizes", sizes, "--device", place.device]
    try:
        done = run_module("benchmarks.compile_ahead", *words, seconds=LIMIT)
    except RuntimeError as error:  # then it is compiled when it is measured
        done = f"FAILED {system} {batch}: {str(error)[-500:]}"
    print(f"# {done}", file=sys.stderr, flush=True)


def run_once(system: str, batch: int, side: int, sizes: Sizes, place: Place) -> None:
    """Compile and run what is measured of a system."""
    from benchmarks.accelerator import PEER_NETWORKS, compiled_twins, peer_here

    if system in PEERS:
        with torch.inference_mode():
            for _, part in (each for each in PEER_NETWORKS if each[0] == system):
                call = peer_here(system, part, sizes, place, side, rows_of(part, batch)[0])
                torch.compiler.reset()
                compiled_step(call.step)()
        return
    dtype = dtype_of(place.dtype)
    networks = {part: single(system, part, sizes, device=place.device) for part in STAGES}
    networks = {part: network.to(dtype) for part, network in networks.items()}
    texts = text_encoders(sizes, place.device, dtype)
    if system == "ours":  # with guidance and without
        our_pipeline(networks, texts, compiled=True)(our_defaults(), side, "pt", batch)
    else:
        their_pipeline(compiled_twins(networks), texts)(SHORT, side, "pt", batch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_ahead")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("batch", type=int)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--sizes", default="published", choices=("published", "tiny"))
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "3")
    if options.device == "cuda":  # as when it is measured: both are part of the cache's key
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    start = time.monotonic()
    sizes = TINY if options.sizes == "tiny" else PUBLISHED
    place = Place(options.device, options.dtype, compiled=True)
    run_once(options.system, options.batch, options.side, sizes, place)
    print(f"{options.system}, batch {options.batch}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
