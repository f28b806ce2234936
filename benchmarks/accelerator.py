"""The measurements on a CUDA device: eager and compiled, one and four images, bf16 and fp32.

Seconds are measured with events on the stream. Ours and diffusers', eager and compiled, take
turns: calls with calls, whole images with whole images. fp32 runs without TF32 for both.
"""

import copy
import gc
from itertools import product

import torch
from torch import nn

from benchmarks.jobs import Job, dtype_of
from benchmarks.memory import measure_memory
from benchmarks.networks import STAGES, pair
from benchmarks.schedules import SIXTY, Schedule, our_defaults
from benchmarks.stages import COMPILE_MODE, Place, measure_calls
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


def measure_accelerator(job: Job) -> None:
    """Calls, whole images and peak memory; nothing without a CUDA device."""
    if not torch.cuda.is_available():
        print("No CUDA device found: only the figures of the CPU are shown.")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for dtype in job.dtypes:
        place = Place("cuda", dtype, cuda, repeats=20, warm=4, compiled=True)
        measure_images(job, place)
        for part in job.parts:
            measure_calls(job, part, place, job.batches)
            _free()
    measure_memory(job, tuple(("cuda", dtype) for dtype in job.dtypes))


def measure_images(job: Job, place: Place) -> None:
    """Images by both pipelines with the defaults of diffusers, and by each with its own."""

    def missing(side: int, batch: int, schedule: Schedule) -> bool:
        known = {"part": "whole", "call": call_name(schedule)}
        known |= {"dtype": place.dtype, "device": place.device}
        return not job.done("times", **known, side=side, rows=batch)

    every = product(job.sides, job.batches, (SIXTY, our_defaults()))
    requested = [each for each in every if missing(*each)]
    if not requested:
        return
    pipelines = four_pipelines(job, place)
    for side, batch, schedule in requested:
        time_images(job, pipelines, schedule, side, place._replace(warm=2), batch)
    pipelines.clear()
    _free()


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
