"""The measurements on a CUDA device: eager and compiled, one and four images, bf16 and fp32.

Every row is saved when it is measured, and the most wanted come first. Seconds are measured with
events on the stream. Ours and diffusers', eager and compiled, take turns: calls with calls, whole
images with whole images. fp32 runs without TF32 for both.
"""

import copy
import gc
from dataclasses import replace
from itertools import product

import torch
from torch import nn

from benchmarks.compile_ahead import compile_ahead
from benchmarks.jobs import Job, any_call, build, dtype_of, rows_of
from benchmarks.memory import measure_memory
from benchmarks.networks import STAGES, NetworkCall, Sizes, pair
from benchmarks.peers import PEERS
from benchmarks.schedules import SIXTY, Schedule, our_defaults
from benchmarks.stages import COMPILE_MODE, MAX_PEER_SIDE, Place, measure_calls, time_calls
from benchmarks.timing import cuda
from benchmarks.whole import (
    Generate,
    Key,
    call_name,
    our_pipeline,
    text_encoders,
    their_pipeline,
    time_images,
)
from wuerstchen.inference.sampling import MOST_PROGRAMS

PEER_NETWORKS = (*((system, "unet") for system in PEERS), (PEERS[0], "vae"))


def measure_accelerator(job: Job) -> None:
    """What `job.measured` names; nothing without a CUDA device."""
    if not torch.cuda.is_available():
        print("No CUDA device found: only the figures of the CPU are shown.")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for dtype in job.dtypes:
        place = Place("cuda", dtype, cuda, repeats=20, warm=4, compiled=True)
        compile_ahead(job, place)
        if "peers" in job.measured:  # in seconds
            measure_peers_here(job, place._replace(compiled=False))
        for batch in job.batches if "images" in job.measured else ():
            measure_images(replace(job, batches=(batch,)), place)
        for batch in job.batches if "compiled-peers" in job.measured else ():
            measure_peers_here(replace(job, batches=(batch,)), place)
        for part in job.parts if "calls" in job.measured else ():
            if job.in_time(f"calls of {part}"):
                measure_calls(job, part, place, job.batches)
                _free()
    if "memory" in job.measured and job.in_time("peak memory"):
        measure_memory(job, tuple(("cuda", dtype) for dtype in job.dtypes))


def measure_images(job: Job, place: Place) -> None:
    """Images by both pipelines with the defaults of diffusers, and by each with its own."""

    def missing(side: int, batch: int, schedule: Schedule) -> bool:
        known = {"part": "whole", "call": call_name(schedule)}
        known |= {"dtype": place.dtype, "device": place.device}
        return not job.done("times", **known, side=side, rows=batch)

    every = product(job.sides, job.batches, (SIXTY, our_defaults()))
    requested = [each for each in every if missing(*each)]
    if not requested or not job.in_time("whole images"):
        return
    pipelines = four_pipelines(job, place)
    for side, batch, schedule in requested:
        if job.in_time(f"{batch} images with the steps {schedule.name}"):
            # An image has many steps, so one is enough to compile and to record a graph.
            time_images(job, pipelines, schedule, side, place._replace(warm=1), batch)
    pipelines.clear()
    _free()


@torch.inference_mode()
def measure_peers_here(job: Job, place: Place) -> None:
    """Guided steps and decodings of the peers; the decoder, which they share, once."""
    for (system, part), side, batch in product(PEER_NETWORKS, job.sides, job.batches):
        rows = rows_of(part, batch)[0]
        known = {"system": system, "part": part, "dtype": place.dtype, "device": place.device}
        known["mode"] = "compiled" if place.compiled else "eager"
        if side > MAX_PEER_SIDE or job.done("times", **known, side=side, rows=rows):
            continue
        if job.in_time(f"{part} of {system}, batch {batch}"):
            call = peer_here(system, part, job.sizes, place, side, rows)
            time_calls(job, part, side, rows, {system: call}, place)
            del call
            _free()


def peer_here(
    system: str, part: str, sizes: Sizes, place: Place, side: int, rows: int
) -> NetworkCall:
    """A network of a peer on the device, with inputs."""
    network = build(system, part, sizes, device=place.device).to(dtype_of(place.dtype))
    return any_call(system, part, network, sizes, side, rows)


def four_pipelines(job: Job, place: Place) -> dict[Key, Generate]:
    """Both systems, eager and compiled, with the same weights, in memory once per system."""
    dtype = dtype_of(place.dtype)
    pairs = {part: pair(part, job.sizes, place.device, dtype) for part in STAGES}
    texts = text_encoders(job.sizes, place.device, dtype)
    ours = {part: found["ours"] for part, found in pairs.items()}
    theirs = {part: found["diffusers"] for part, found in pairs.items()}
    return {
        ("ours", "eager"): our_pipeline(ours, texts),
        ("diffusers", "eager"): their_pipeline(theirs, texts),
        ("ours", "compiled"): our_pipeline(ours, texts, compiled=True),
        ("diffusers", "compiled"): their_pipeline(compiled_twins(theirs), texts),
    }


def compiled_twins(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """diffusers' networks with prior and decoder compiled, as its guide recommends.

    They are other modules with the same layers, so that the originals stay eager.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_PROGRAMS)  # as `Pipeline.compile`
    twins = {part: copy.copy(network) for part, network in networks.items()}
    for part in ("stage_c", "stage_b"):
        twins[part].compile(fullgraph=True, dynamic=False, mode=COMPILE_MODE)
    return twins


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.compiler.reset()
