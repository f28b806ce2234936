"""The same measurements on a CUDA device: eager and compiled, one and four pictures, two types.

Seconds are taken with events on the stream. Each network of ours meets diffusers' in turns, all
four ways to run them in one round.
"""

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.jobs import Job, dtype_of, rows_of
from benchmarks.memory import measure_memory
from benchmarks.networks import STAGES, Asked, ask, pair
from benchmarks.recipes import SIXTY, our_defaults
from benchmarks.records import Difference, Times, load
from benchmarks.stages import largest_difference
from benchmarks.timing import Work, alternate, cuda
from benchmarks.whole import call_of, our_pipeline, text_encoders, their_pipeline, time_pictures
from wuerstchen.steps import MOST_PROGRAMS

DTYPES = ("float32", "bfloat16")
BATCHES = (1, 4)
MODES = ("eager", "compiled")
COMPILE_MODE = "reduce-overhead"
"""Whole calls as CUDA graphs, for both systems."""
STEP_REPEATS = 20
"""At least so many samples: a call takes milliseconds."""
WARM = 4
"""Compiling, recording a graph and the first replay are not counted."""


def measure_accelerator(job: Job) -> None:
    """Calls, whole pictures and peak memory; nothing where there is no CUDA device."""
    if not torch.cuda.is_available():
        print("There is no CUDA device: the table of the CPU stands alone.")
        return
    for dtype in DTYPES:
        for part in STAGES:
            _measure_part(job, part, dtype)
        for mode in MODES:
            _measure_pictures(job, dtype, mode)
    measure_memory(job, tuple(("cuda", dtype) for dtype in DTYPES))


@torch.inference_mode()
def _measure_part(job: Job, part: str, dtype: str) -> None:
    wanted = [
        (side, rows)
        for side in job.sides
        for batch in BATCHES
        for rows in rows_of(part, batch)
        if not job.done(
            "times", part=part, call="step", side=side, rows=rows, dtype=dtype, device="cuda"
        )
    ]
    if not wanted:
        return
    networks = pair(part, job.sizes, "cuda", dtype_of(dtype))
    for side, rows in dict.fromkeys(wanted):
        asked = {
            system: ask(system, part, network, job.sizes, side, rows)
            for system, network in networks.items()
        }
        _compare(job, part, side, rows, dtype, asked)
        _time(job, part, side, rows, dtype, asked)
        torch.compiler.reset()  # a new shape is a new program, not one more variant
    networks.clear()
    _free()


def _time(job: Job, part: str, side: int, rows: int, dtype: str, asked: dict[str, Asked]) -> None:
    before = load()
    works: dict[tuple[str, str, str], Work] = {}
    for system, each in asked.items():
        works[system, "step", "eager"] = each.step
        works[system, "step", "compiled"] = _compiled(each.step)
        if each.prepare is not None:
            works[system, "prepare", "eager"] = each.prepare
    named = {"/".join(key): work for key, work in works.items()}
    repeats = max(job.repeats, STEP_REPEATS)
    for name, seconds in alternate(named, repeats, cuda, WARM).items():
        system, call, mode = name.split("/")
        for each_mode in MODES if call == "prepare" else (mode,):  # it is never compiled
            job.keep(
                Times(
                    system=system,
                    part=part,
                    call=call,
                    side=side,
                    rows=rows,
                    device="cuda",
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
    job: Job, part: str, side: int, rows: int, dtype: str, asked: dict[str, Asked]
) -> None:
    found: dict[str, Tensor] = {system: each.step().float() for system, each in asked.items()}
    largest, scale = largest_difference(found["ours"], found["diffusers"])
    job.keep(
        Difference(
            what=f"{part}, rows: {rows}",
            side=side,
            device="cuda",
            dtype=dtype,
            largest=largest,
            scale=scale,
        )
    )


def _measure_pictures(job: Job, dtype: str, mode: str) -> None:
    """Pictures by both pipelines at diffusers' settings, and by each at its own."""
    pairs = {part: pair(part, job.sizes, "cuda", dtype_of(dtype)) for part in STAGES}
    texts = text_encoders(job.sizes, "cuda", dtype_of(dtype))
    compiled = mode == "compiled"
    ours = our_pipeline({p: each["ours"] for p, each in pairs.items()}, texts, compiled=compiled)
    theirs = {part: found["diffusers"] for part, found in pairs.items()}
    if compiled:
        compile_theirs(theirs)
    draws = {"ours": ours, "diffusers": their_pipeline(theirs, texts)}
    for side in job.sides:
        for batch in BATCHES:
            for recipe in (SIXTY, our_defaults()):
                words = {"part": "whole", "call": call_of(recipe), "dtype": dtype, "mode": mode}
                if not job.done("times", side=side, rows=batch, device="cuda", **words):
                    time_pictures(
                        job,
                        draws,
                        recipe,
                        side,
                        device="cuda",
                        dtype=dtype,
                        mode=mode,
                        batch=batch,
                        clock=cuda,
                        warm=2,
                    )
    _free()


def compile_theirs(networks: dict[str, nn.Module]) -> None:
    """Have diffusers' prior and decoder run compiled, as its documentation says."""
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_PROGRAMS)  # as `Pipeline.compile`
    for part in ("stage_c", "stage_b"):
        networks[part].compile(fullgraph=True, dynamic=False, mode=COMPILE_MODE)


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.compiler.reset()
