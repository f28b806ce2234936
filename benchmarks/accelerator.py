"""The same measurements on a CUDA device: eager and compiled, one and four images, two types.

Seconds are taken with events on the stream. Ours and diffusers', eager and compiled, meet in one
round: calls in one, whole images in another. fp32 is fp32 for both: without TF32.
"""

import copy
import gc
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.jobs import Job, dtype_of, rows_of
from benchmarks.memory import measure_memory
from benchmarks.networks import STAGES, Asked, ask, pair
from benchmarks.recipes import SIXTY, Recipe, our_defaults
from benchmarks.records import Difference, Times, load
from benchmarks.stages import largest_difference
from benchmarks.timing import Clock, Work, alternate, cuda
from benchmarks.whole import (
    Draws,
    Key,
    call_of,
    our_pipeline,
    text_encoders,
    their_pipeline,
    time_images,
)
from wuerstchen.inference.sampling import MOST_PROGRAMS

MODES = ("eager", "compiled")
COMPILE_MODE = "reduce-overhead"
"""Whole calls as CUDA graphs, for both systems."""


class Place(NamedTuple):
    """Where to measure, and how a call is timed and repeated there."""

    device: str
    clock: Clock
    repeats: int
    """At least so many samples of a call, which takes milliseconds."""
    warm: int
    """Compiling, recording a graph and the first replay are not counted."""


CUDA = Place("cuda", cuda, repeats=20, warm=4)


def measure_accelerator(job: Job) -> None:
    """Calls, whole images and peak memory; nothing where there is no CUDA device."""
    if not torch.cuda.is_available():
        print("There is no CUDA device: the table of the CPU stands alone.")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for dtype in job.dtypes:
        measure_images(job, dtype, CUDA)
        for part in job.parts:
            measure_calls(job, part, dtype, CUDA)
    measure_memory(job, tuple((CUDA.device, dtype) for dtype in job.dtypes))


@torch.inference_mode()
def measure_calls(job: Job, part: str, dtype: str, place: Place) -> None:
    """A call of one network of both systems at every size and batch."""
    wanted = [
        (side, rows)
        for side, batch in product(job.sides, job.batches)
        for rows in rows_of(part, batch)
        if not job.done(
            "times", part=part, call="step", side=side, rows=rows, dtype=dtype, device=place.device
        )
    ]
    if not wanted:
        return
    networks = pair(part, job.sizes, place.device, dtype_of(dtype))
    for side, rows in dict.fromkeys(wanted):
        asked = {
            system: ask(system, part, network, job.sizes, side, rows)
            for system, network in networks.items()
        }
        _compare(job, part, side, rows, dtype, place, asked)
        _time(job, part, side, rows, dtype, place, asked)
        torch.compiler.reset()  # a new shape is a new program, not one more variant
    networks.clear()
    _free()


def _time(
    job: Job, part: str, side: int, rows: int, dtype: str, place: Place, asked: dict[str, Asked]
) -> None:
    before = load()
    works: dict[tuple[str, str, str], Work] = {}
    for system, each in asked.items():
        works[system, "step", "eager"] = each.step
        works[system, "step", "compiled"] = _compiled(each.step)
        if each.prepare is not None:
            works[system, "prepare", "eager"] = each.prepare
    repeats = max(job.repeats, place.repeats)
    for (system, call, mode), seconds in alternate(works, repeats, place.clock, place.warm).items():
        for each_mode in MODES if call == "prepare" else (mode,):  # it is never compiled
            job.keep(
                Times(
                    system=system,
                    part=part,
                    call=call,
                    side=side,
                    rows=rows,
                    device=place.device,
                    dtype=dtype,
                    mode=each_mode,
                    seconds=seconds,
                    load=before,
                )
            )


def _compiled(step: Callable[[], Tensor]) -> Work:
    compiled: Work = torch.compile(step, fullgraph=True, dynamic=False, mode=COMPILE_MODE)
    return compiled


def _compare(
    job: Job, part: str, side: int, rows: int, dtype: str, place: Place, asked: dict[str, Asked]
) -> None:
    found: dict[str, Tensor] = {system: each.step().float() for system, each in asked.items()}
    largest, scale = largest_difference(found["ours"], found["diffusers"])
    job.keep(
        Difference(
            what=f"{part}, rows: {rows}",
            side=side,
            device=place.device,
            dtype=dtype,
            largest=largest,
            scale=scale,
        )
    )


def measure_images(job: Job, dtype: str, place: Place) -> None:
    """Images by both pipelines at diffusers' settings, and by each at its own."""

    def missing(side: int, batch: int, recipe: Recipe) -> bool:
        words = {"part": "whole", "call": call_of(recipe), "dtype": dtype, "device": place.device}
        return not job.done("times", **words, side=side, rows=batch)

    asked = product(job.sides, job.batches, (SIXTY, our_defaults()))
    wanted = [each for each in asked if missing(*each)]
    if not wanted:
        return
    draws = _all_four(job, dtype, place.device)
    for side, batch, recipe in wanted:
        time_images(
            job,
            draws,
            recipe,
            side,
            device=place.device,
            dtype=dtype,
            batch=batch,
            clock=place.clock,
            warm=2,
        )
    draws.clear()
    _free()


def _all_four(job: Job, dtype: str, device: str) -> dict[Key, Draws]:
    """Both systems, eager and compiled, all with the same weights in memory once a system."""
    pairs = {part: pair(part, job.sizes, device, dtype_of(dtype)) for part in STAGES}
    texts = text_encoders(job.sizes, device, dtype_of(dtype))
    ours = {part: found["ours"] for part, found in pairs.items()}
    theirs = {part: found["diffusers"] for part, found in pairs.items()}
    return {
        ("ours", "eager"): our_pipeline(ours, texts),
        ("diffusers", "eager"): their_pipeline(theirs, texts),
        ("ours", "compiled"): our_pipeline(ours, texts, compiled=True),
        ("diffusers", "compiled"): their_pipeline(compiled_twins(theirs), texts),
    }


def compiled_twins(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """diffusers' networks, of which the prior and the decoder run compiled, as its guide says.

    They are other modules with the same layers, so that the given ones go on as they are.
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
