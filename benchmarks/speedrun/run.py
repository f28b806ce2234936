"""The parts of a run in their order, each metered, and reported as soon as it ends.

compose ─▶ products ─▶ Stages A, B, C ─▶ reconstructions, images, scores ─▶ page
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer

from benchmarks.records import this_run
from benchmarks.speedrun.judging import judge
from benchmarks.speedrun.page import write_page
from benchmarks.speedrun.phases import Place, run_stage_a, run_stage_b, run_stage_c
from benchmarks.speedrun.products import product_rates
from benchmarks.speedrun.report import Attempt, Report, cost_of
from benchmarks.speedrun.samples import (
    CAPTIONED,
    RECONSTRUCTED,
    write_drawn,
    write_reconstructions,
)
from benchmarks.speedrun.scenes import Scenes
from benchmarks.speedrun.timed import Journal
from wuerstchen.config import Config, dump
from wuerstchen.evaluation import open_pipeline
from wuerstchen.evaluation.inputs import drawing
from wuerstchen.evaluation.stickers import Scores
from wuerstchen.receipts import Meter, Tariff, open_receipt, write_receipts
from wuerstchen.receipts.phase import Kind

STAGES = {
    "a": (run_stage_a, "vqgan"),
    "b": (run_stage_b, "decoder"),
    "c": (run_stage_c, "prior_prior"),
}
"""How each is trained, and what it leaves in the model folder."""

LOG, FEATURES = "log.jsonl", "judge.safetensors"


@dataclass
class Speedrun:
    """A run in a folder, new or interrupted: what its report has is not done again."""

    stickers: Path
    out: Path
    config: Config
    report: Report
    begun: float
    """`time.time()` when the process started."""
    _started: float = field(default_factory=time.perf_counter)
    """When this object was made, by a clock that nobody sets."""
    _before: float = field(init=False)
    """Seconds of the process before that."""

    def __post_init__(self) -> None:
        self._before = time.time() - self.begun

    @property
    def folder(self) -> Path:
        """Of the model."""
        return self.out / self.config.name

    def run(self, judged: int) -> None:
        """Train what is left, then score `judged` images of each set of prompts; 0: no scores."""
        left = [stage for stage in STAGES if not self._has(stage)]
        test, train = self._compose(self.report.settings.scenes if left else CAPTIONED)
        place = self._place()
        if not self.report.products:
            with self._part("model", "evaluation"):
                self.report.products = product_rates(place.device)
        for stage, seconds in zip(STAGES, self.report.settings.seconds, strict=True):
            if stage in left:
                self._train(stage, seconds, train, place)
        if judged:
            scores = self._score(test, train, place, judged)
            receipt = open_receipt(self.folder, Tariff())
            typer.echo("\n".join(scores.lines()))
            typer.echo(write_page(self.out, self.report, scores, receipt))

    def _has(self, stage: str) -> bool:
        return stage in self.report.stages and (self.folder / STAGES[stage][1]).is_dir()

    def _compose(self, count: int) -> tuple[Scenes, Scenes]:
        """Held-out and `count` training scenes, in memory."""
        torch.set_num_threads(cores := available_cores())
        size, seed = self.config.data.size, self.config.seed
        test = Scenes(self.out, "test-cells", self.stickers, size, RECONSTRUCTED, seed)
        train = Scenes(self.out, "train", self.stickers, size, count, seed)
        for part in (test, train):  # before the receipt's first phase, which starts CUDA
            part.start(cores)
        self.report.attempts.append(Attempt(run=this_run(self.config.name), seconds=0))
        self._save()
        with self._part("data", "preparation") as journal:
            for part in (test, train):
                part.wait()
                journal.meter.tick(images=len(part))
        return test, train

    def _place(self) -> Place:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.set_float32_matmul_precision("high")
            torch._dynamo.config.recompile_limit = 64  # shapes of a block
            torch._dynamo.config.suppress_errors = True  # an eager network is slower, not wrong
        compiled = self.report.settings.compiled
        return Place(torch.device("cuda" if cuda else "cpu"), compiled=compiled)

    def _train(self, stage: str, seconds: float, scenes: Scenes, place: Place) -> None:
        run_stage, _ = STAGES[stage]
        with self._part(stage, "training") as journal:
            done = run_stage(self.config, seconds, scenes, self.folder, place, journal)
            self.report.stages[stage] = done
        typer.echo(f"{stage}: {done.model_dump_json()}")
        if place.device.type == "cuda":
            torch.cuda.empty_cache()

    def _score(self, test: Scenes, train: Scenes, place: Place, most: int) -> Scores:
        with self._part("model", "evaluation"):
            self.report.reconstruction = write_reconstructions(
                self.config, self.folder, test, place, self.out
            )
            pipeline = open_pipeline(self.folder)
            each = write_drawn(drawing(pipeline), (test, train), self.out)
            kept = self.out / FEATURES
            scores = judge(
                pipeline, self.stickers, kept, most=most, each=each, left=self._seconds_left
            )
            self.report.judged, self.report.scores = most, scores.content()
        return scores

    def _seconds_left(self) -> float:
        """Until the limit, while a part runs."""
        self._read_clock()
        return self.report.settings.limit - self.report.seconds

    @contextmanager
    def _part(self, stage: str, kind: Kind) -> Iterator[Journal]:
        """Meter a part of the run; at its end the report is written, with the cost so far.

        A part that is stopped counts as well.
        """
        start = time.perf_counter()
        try:
            with Meter(self.folder, stage=stage, kind=kind, config=dump(self.config)) as meter:
                yield Journal(self.out / LOG, meter, self._save)
        finally:
            receipt = write_receipts(self.folder, Tariff())
            if receipt is not None:
                self.report.cost = cost_of(receipt)
            self._save()
        typer.echo(f"{kind} ({stage}): {time.perf_counter() - start:.0f} s")

    def _save(self) -> None:
        """Write the report, with the seconds of this process until now."""
        self._read_clock()
        self.report.save(self.out)

    def _read_clock(self) -> None:
        self.report.attempts[-1].seconds = self._before + time.perf_counter() - self._started


def available_cores() -> int:
    """Processor cores of this process, such as those that taskset leaves it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows
