"""Floating-point operations, counted on the meta device without computing anything.

A multiplication with its addition counts two. Matrix products, convolutions and attention are
counted; element-wise operations are not, for any system.
"""

from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.jobs import Job, any_call, build, parts_of, rows_of
from benchmarks.peers import PEERS
from benchmarks.records import Count
from benchmarks.timing import Work

SYSTEMS = ("ours", "diffusers", *PEERS)
SIDES = (512, 768, 1024, 1536, 2048)


def measure_flops(job: Job) -> None:
    """Every call of every system at every side."""
    for system in SYSTEMS:
        for part in parts_of(system):
            network = build(system, part, job.sizes, filled=False)
            for side, rows in product(job.sides, rows_of(part)):
                what = {"system": system, "part": part, "side": side, "rows": rows}
                with torch.no_grad():
                    calls = any_call(system, part, network, job.sizes, side, rows)
                for call, work in calls._asdict().items():
                    if work is not None:
                        record = {**what, "call": call, "flops": count(work)}
                        job.keep(Count.model_validate(record))


def count(work: Work) -> int:
    """Operations of one run."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
