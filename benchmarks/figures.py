"""Figures derived from the measurements: ratios, and images composed of measured calls."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.peers import PEERS
from benchmarks.records import Count, Difference, Measured, Peak, Results, Times
from benchmarks.schedules import Calls, Schedule, network_calls
from benchmarks.timing import ratios


class Backend(NamedTuple):
    """Device, dtype and mode of a call."""

    device: str = "cpu"
    dtype: str = "float32"
    mode: str = "eager"


CPU = Backend()


class Seconds(NamedTuple):
    """Median and range of a time."""

    value: float
    low: float
    high: float
    how: str
    """`measured`, `composed` of measured calls, or `scaled`: at least one of the calls was measured
    at another side and scaled by its operations."""


class Figures:
    """Lookups in all measurements; None for what was not measured."""

    def __init__(self, results: Sequence[Results]) -> None:
        records: list[Measured] = [record for each in results for record in each.records]
        self.times = [record for record in records if isinstance(record, Times)]
        self.counts = [record for record in records if isinstance(record, Count)]
        self.differences = [record for record in records if isinstance(record, Difference)]
        self.peaks = [record for record in records if isinstance(record, Peak)]

    def samples(
        self, system: str, part: str, call: str, side: int, rows: int, how: Backend = CPU
    ) -> list[float]:
        """All seconds of one call; an empty list where there are none."""
        if system in PEERS and part == "vae":
            system = PEERS[0]  # both have the same decoder
        for each in self.times:
            found = (each.system, each.part, each.call, each.side, each.rows)
            if found == (system, part, call, side, rows):
                if (each.device, each.dtype, each.mode) == how:
                    return each.seconds
        return []

    def ratio(
        self, part: str, call: str, side: int, rows: int, how: Backend = CPU, other: Backend = CPU
    ) -> Seconds | None:
        """Our time over that of diffusers: of the medians, with the range over the turns."""
        ours = self.samples("ours", part, call, side, rows, how)
        theirs = self.samples("diffusers", part, call, side, rows, other)
        if not ours or not theirs:
            return None
        value = median(ours) / median(theirs)
        turns = ratios(ours, theirs) if len(ours) == len(theirs) else [value]
        return Seconds(value, min(turns), max(turns), "measured")

    def flops(self, system: str, part: str, call: str, side: int, rows: int) -> int | None:
        """Operations of one call."""
        for each in self.counts:
            found = (each.system, each.part, each.call, each.side, each.rows)
            if found == (system, part, call, side, rows):
                return each.flops
        return None

    def image_flops(self, system: str, schedule: Schedule, side: int) -> int | None:
        """Operations of an image."""
        found = [
            self.flops(system, calls.part, calls.call, side, calls.rows)
            for calls in network_calls(system, schedule)
        ]
        if None in found:
            return None
        counts = [count for count in found if count is not None]
        return sum(
            p.times * n for p, n in zip(network_calls(system, schedule), counts, strict=True)
        )

    def image(
        self, system: str, schedule: Schedule, side: int, how: Backend = CPU, batch: int = 1
    ) -> Seconds | None:
        """Seconds of an image, composed of its calls."""
        found = [
            (calls, self._call(system, calls, side, how))
            for calls in network_calls(system, schedule, batch)
        ]
        known = [(calls.times, each) for calls, each in found if each is not None]
        if len(known) < len(found):
            return None
        scaled = any(each.how == "scaled" for _, each in known)
        return Seconds(
            sum(times * each.value for times, each in known),
            sum(times * each.low for times, each in known),
            sum(times * each.high for times, each in known),
            "scaled" if scaled else "composed",
        )

    def whole(self, schedule: Schedule, side: int, how: Backend, batch: int) -> list[list[float]]:
        """Seconds of whole images of ours and of diffusers, where measured."""
        both = ("ours", "diffusers")
        return [self.samples(s, "whole", schedule.name, side, batch, how) for s in both]

    def worst_difference(self) -> float | None:
        """Largest difference of outputs in fp32 with equal settings."""
        found = [each.largest for each in self.differences if each.dtype == "float32"]
        return max(found, default=None)

    def _call(self, system: str, calls: Calls, side: int, how: Backend) -> Seconds | None:
        samples = self.samples(system, calls.part, calls.call, side, calls.rows, how)
        if samples:
            return Seconds(median(samples), min(samples), max(samples), "measured")
        nearest = self._nearest(system, calls, side, how)
        if nearest is None:
            return None
        samples = self.samples(system, calls.part, calls.call, nearest, calls.rows, how)
        there = self.flops(system, calls.part, calls.call, nearest, calls.rows)
        here = self.flops(system, calls.part, calls.call, side, calls.rows)
        if there is None or here is None:
            return None
        factor = here / there if there else 1.0
        values = (median(samples), min(samples), max(samples))
        value, low, high = (factor * value for value in values)
        return Seconds(value, low, high, "scaled")

    def _nearest(self, system: str, calls: Calls, side: int, how: Backend) -> int | None:
        """The largest measured side below this one, or else the smallest above."""
        sides = sorted({each.side for each in self.times})
        measured = [
            other
            for other in sides
            if self.samples(system, calls.part, calls.call, other, calls.rows, how)
        ]
        below = [other for other in measured if other < side]
        return below[-1] if below else (measured[0] if measured else None)
