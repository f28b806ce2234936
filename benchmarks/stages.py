"""Seconds per call: our networks against diffusers' in turns, and those of the peers."""

import torch

from benchmarks.jobs import Job, ask_any, build, rows_of
from benchmarks.networks import Asked, ask, pair
from benchmarks.peers import PEERS
from benchmarks.records import Difference, Times, load
from benchmarks.timing import Work, alternate

LARGEST_PEER_SIDE = 1024
"""Largest side at which a peer is run; a step of SDXL takes minutes beyond."""


@torch.inference_mode()
def measure_stages(job: Job) -> None:
    """A step of Stages C and B and a decoding by Stage A, and how far the outputs differ."""
    for part in job.parts:
        wanted = [
            (side, rows)
            for side in sorted(job.sides)
            for rows in rows_of(part)
            if not job.done("times", part=part, side=side, rows=rows, system="diffusers")
        ]
        if not wanted:
            continue
        networks = pair(part, job.sizes)
        for side, rows in wanted:
            asked = {
                system: ask(system, part, network, job.sizes, side, rows)
                for system, network in networks.items()
            }
            _compare(job, part, side, rows, asked)
            _time(job, part, side, rows, asked)


@torch.inference_mode()
def measure_peers(job: Job) -> None:
    """A guided step and a decoding of each peer; the decoder, which they share, once."""
    for system, part in ((PEERS[0], "vae"), *((system, "unet") for system in PEERS)):
        rows = rows_of(part)[0]
        sides = [side for side in sorted(job.sides) if side <= LARGEST_PEER_SIDE]
        wanted = [
            side
            for side in sides
            if not job.done("times", system=system, part=part, side=side, rows=rows)
        ]
        if not wanted:
            continue
        network = build(system, part, job.sizes)
        for side in wanted:
            asked = ask_any(system, part, network, job.sizes, side, rows)
            _time(job, part, side, rows, {system: asked})


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """Largest absolute difference, and the largest absolute value of the second."""
    return float((ours - theirs).abs().max()), float(theirs.abs().max())


def _compare(job: Job, part: str, side: int, rows: int, asked: dict[str, Asked]) -> None:
    found = {system: each.step().float() for system, each in asked.items()}
    largest, scale = largest_difference(found["ours"], found["diffusers"])
    what = f"{part}, rows: {rows}"
    job.keep(Difference(what=what, side=side, largest=largest, scale=scale))


def _time(job: Job, part: str, side: int, rows: int, asked: dict[str, Asked]) -> None:
    before = load()
    steps: dict[str, Work] = {system: each.step for system, each in asked.items()}
    prepare = {system: each.prepare for system, each in asked.items() if each.prepare}
    for call, works in (("prepare", prepare), ("step", steps)):
        for system, seconds in alternate(works, job.repeats).items():
            job.keep(
                Times(
                    system=system,
                    part=part,
                    call=call,
                    side=side,
                    rows=rows,
                    seconds=seconds,
                    load=before,
                )
            )
