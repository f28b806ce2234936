"""Seconds per network call, and whether our output equals that of diffusers."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.jobs import Job, any_call, build, dtype_of, rows_of
from benchmarks.networks import NetworkCall, network_call, pair
from benchmarks.peers import PEERS
from benchmarks.records import Difference, Times, load
from benchmarks.timing import Clock, Work, alternate, wall, working

MAX_PEER_SIDE = 1024
"""Largest side at which a peer is run; a step of SDXL takes minutes beyond."""

MODES = ("eager", "compiled")
COMPILE_MODE = "reduce-overhead"
"""Whole calls as CUDA graphs, for both systems."""


class Place(NamedTuple):
    """Where calls are timed, and how."""

    device: str = "cpu"
    dtype: str = "float32"
    clock: Clock = wall
    repeats: int = 1
    """Minimum number of samples of a call."""
    warm: int = 1
    """Runs that are not counted: compilation, recording of a graph, its first replay."""
    compiled: bool = False
    """Whether compiled steps are timed too."""


CPU = Place()


def measure_stages(job: Job) -> None:
    """A step of Stages C and B and a decoding by Stage A."""
    for part in job.parts:
        measure_calls(job, part, CPU, (1,))


@torch.inference_mode()
def measure_calls(job: Job, part: str, place: Place, batches: tuple[int, ...]) -> None:
    """Calls of one network of both systems at every side and batch, and their difference."""
    known = {"part": part, "system": "diffusers", "call": "step"}
    known |= {"dtype": place.dtype, "device": place.device}
    missing = [
        (side, rows)
        for side, batch in product(sorted(job.sides), batches)
        for rows in rows_of(part, batch)
        if not job.done("times", **known, side=side, rows=rows)
    ]
    if not missing:
        return
    networks = pair(part, job.sizes, place.device, dtype_of(place.dtype))
    for side, rows in dict.fromkeys(missing):
        calls = {
            system: network_call(system, part, network, job.sizes, side, rows)
            for system, network in networks.items()
        }
        outputs = {system: call.step() for system, call in calls.items()}
        keep_difference(job, f"{part}, rows: {rows}", side, outputs, place)
        time_calls(job, part, side, rows, calls, place)
        if place.compiled:
            torch.compiler.reset()  # a new shape is a new program, not one more variant


@torch.inference_mode()
def measure_peers(job: Job) -> None:
    """A guided step and a decoding of each peer; the decoder, which they share, once."""
    for system, part in ((PEERS[0], "vae"), *((system, "unet") for system in PEERS)):
        rows = rows_of(part)[0]
        missing = [
            side
            for side in sorted(job.sides)
            if side <= MAX_PEER_SIDE
            and not job.done("times", system=system, part=part, side=side, rows=rows)
        ]
        if not missing:
            continue
        network = build(system, part, job.sizes)
        for side in missing:
            call = any_call(system, part, network, job.sizes, side, rows)
            time_calls(job, part, side, rows, {system: call}, CPU)


def keep_difference(
    job: Job, what: str, side: int, outputs: Mapping[str, Tensor], place: Place = CPU
) -> None:
    """Record the largest difference between our output and that of diffusers."""
    ours, theirs = outputs["ours"].float(), outputs["diffusers"].float()
    job.keep(
        Difference(
            what=what,
            side=side,
            device=place.device,
            dtype=place.dtype,
            largest=float((ours - theirs).abs().max()),
            scale=float(theirs.abs().max()),
        )
    )


def time_calls(
    job: Job, part: str, side: int, rows: int, calls: Mapping[str, NetworkCall], place: Place
) -> None:
    """Time the calls of all systems in turns and record the seconds."""
    works: dict[tuple[str, str, str], Work] = {}
    for system, each in calls.items():
        works[system, "step", "eager"] = each.step
        if place.compiled:
            works[system, "step", "compiled"] = compiled_step(each.step)
        if each.prepare is not None:
            works[system, "prepare", "eager"] = each.prepare
    before = load()
    repeats = max(job.repeats, place.repeats)
    if place.compiled:
        works = working(works, place.clock, place.warm)
    warm = 0 if place.compiled else place.warm
    for (system, call, mode), seconds in alternate(works, repeats, place.clock, warm).items():
        shared = place.compiled and call == "prepare"  # it is never compiled
        for each_mode in MODES if shared else (mode,):
            job.keep(
                Times(
                    system=system,
                    part=part,
                    call=call,
                    side=side,
                    rows=rows,
                    device=place.device,
                    dtype=place.dtype,
                    mode=each_mode,
                    seconds=seconds,
                    load=before,
                )
            )


def compiled_step(step: Callable[[], Tensor]) -> Work:
    compiled: Work = torch.compile(step, fullgraph=True, dynamic=False, mode=COMPILE_MODE)
    return compiled
