"""Clocks, and alternating runs, so that drift of the machine affects all equally."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Work = Callable[[], object]
Clock = Callable[[Work], float]
"""Runs the work once and returns the seconds it took."""

Name = TypeVar("Name")


def wall(work: Work) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cuda(work: Work) -> float:
    """Seconds between two events on the current stream, with nothing else running."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.compiler.cudagraph_mark_step_begin()
    torch.cuda.synchronize()
    first.record()
    work()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000


def working(works: Mapping[Name, Work], clock: Clock, warm: int) -> dict[Name, Work]:
    """Run each `warm` times uncounted; what cannot run is reported and left out."""
    found: dict[Name, Work] = {}
    for name, work in works.items():
        start = time.monotonic()
        try:
            for _ in range(warm):
                clock(work)
        except Exception as error:  # a compiler may refuse one system; the others go on
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            print(f"FAILED {name}: {reason}", file=sys.stderr, flush=True)
            continue
        found[name] = work
        if warm and (seconds := time.monotonic() - start) > 1:
            print(f"# {name} was ready after {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def alternate(
    works: Mapping[Name, Work], repeats: int, clock: Clock = wall, warm: int = 1
) -> dict[Name, list[float]]:
    """Run each `warm` times uncounted, then A B, B A, A B, ... to `repeats` seconds of each."""
    for work in works.values():
        for _ in range(warm):
            clock(work)
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    forth = list(works)
    for turn in range(repeats):
        for name in forth if turn % 2 == 0 else forth[::-1]:
            seconds[name].append(clock(works[name]))
    return seconds


def ratios(first: list[float], second: list[float]) -> list[float]:
    """first / second, turn by turn: both ran under the same conditions in a turn."""
    return [a / b for a, b in zip(first, second, strict=True)]
