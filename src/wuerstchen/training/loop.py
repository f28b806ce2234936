"""The training loop that all stages share: batches, steps, checkpoints, looks."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

from accelerate import Accelerator
from torch import nn

from wuerstchen.data import Batch, BatchLoader, Pairs
from wuerstchen.errors import TrainingError
from wuerstchen.receipts import Meter
from wuerstchen.training.checkpoints import Checkpoint, Checkpoints, Progress, load
from wuerstchen.training.distributed import any_rank, barrier, broadcast, explain_lost_peers
from wuerstchen.training.interrupts import interrupts
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.progress import Throughput, progress
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import Stage
from wuerstchen.training.train_step import Steps, memory_explained

DIVERGED = 20.0
"""A smoothed error this many times above its best is taken for divergence."""

SMOOTHING = 0.98
"""Decay per step of the smoothed error."""

SETTLED = 20
"""Steps after which the smoothed error counts: few images at random times say little."""

log = logging.getLogger(__name__)


class Loop:
    """Trains one stage to its end, or until it is interrupted."""

    def __init__(
        self,
        stage: Stage,
        train: Pairs,
        test: Pairs,
        run_log: RunLog,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        self.stage, self.recipe = stage, stage.training
        self._train, self._test, self._run_log = train, test, run_log
        self._accelerator, self._seed = accelerator, seed
        self.images = 0
        self._smooth, self._lowest = 0.0, math.inf
        self._held_out, self._average = math.inf, 0  # of the best look, and whose it was
        self._optimizers = Optimizers(stage, accelerator)
        self.checkpoints = Checkpoints(run_log.folder, self.recipe.keep_checkpoints)
        newest = self.checkpoints.newest()
        if newest is not None:
            self._load(newest)
        run_log.truncate(self.images)
        self._throughput = Throughput(self.images)
        self._meter: Meter | None = None
        self._steps = Steps(stage, self._optimizers, run_log, accelerator, seed)

    def run(self, meter: Meter | None = None) -> None:
        """Train; raises TrainingError on divergence or Ctrl-C, with everything saved.

        meter  measures the costs of the work
        """
        self._meter = meter
        batches = BatchLoader(
            self._train,
            self.recipe.batch_size,
            self._seed,
            rank=self._accelerator.process_index,
            world=self._accelerator.num_processes,
            seen=self.images,
            images=self.stage.needs_images,
        )
        talks = self._accelerator.is_main_process
        if talks and not len(self._test):
            log.info(
                "No images are held out, so stage %s ends with its last weights, without losses "
                "and grids of such images on the way.",
                self.stage.name,
            )
        bar = progress(self.stage.name, self.recipe.images, self.images, visible=talks)
        with bar as tell, interrupts(visible=talks) as interrupted:
            try:
                stage = f"Stage {self.stage.name}"
                with explain_lost_peers(stage), memory_explained(stage):
                    timed = self._throughput.timed(batches)
                    while self.images < self.recipe.images:
                        self._step(next(timed))
                        tell(self.images, self._smooth)
                        if any_rank(bool(interrupted)):  # all have to stop at the same step
                            self._save_and_leave()
            finally:
                self._run_log.close()

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        """The averaged network that the stage ends with; every process has to enter."""
        best = self.checkpoints.best() if self.recipe.export == "best" else None
        if best is not None:
            log.info(
                "Stage %s ends with the weights that it had after %s images, whose held-out loss "
                "was the lowest.",
                self.stage.name,
                best.progress["images"],
            )
            self._load(best)
        with self._optimizers.ema_network(self._average) as network:
            yield network

    def _step(self, batch: Batch) -> None:
        self.stage.step += 1
        self.stage.images = self.images
        scalars = self._steps.take(batch)
        before, self.images = self.images, self.images + self.recipe.batch_size
        self._watch(scalars, batch)
        if self.stage.step % self.recipe.log_every == 0 or self.images >= self.recipe.images:
            pace = self._throughput.since_last(self.images)
            self._run_log.log(
                self.images, {**scalars, "learning_rate": self._optimizers.learning_rate, **pace}
            )
        if self._meter is not None:
            self._meter.tick(self.recipe.batch_size, self._steps.flops)
        self._look_and_save(before)

    def _look_and_save(self, before: int) -> None:
        done = self.images >= self.recipe.images
        improved = False
        if _crossed(before, self.images, self.recipe.validate_every) or done:
            with self._meter.as_kind("validation") if self._meter is not None else nullcontext():
                improved = self._look()
        if _crossed(before, self.images, self.recipe.checkpoint_every) or done or improved:
            if self._meter is not None:
                self._meter.save()
            self._save()

    def _look(self) -> bool:
        """Held-out losses and a grid, by the averaged weights; whether a loss was never lower."""
        found = [self._look_at(index) for index in range(len(self._optimizers.ema))]
        lowest = min(found)
        improved = lowest < self._held_out
        if self.recipe.export == "last" or improved:
            self._average = found.index(lowest)
        if improved:
            self._held_out = lowest
        return improved

    def _look_at(self, index: int) -> float:
        """The held-out loss of average `index`, which the first process finds and logs."""
        loss = math.inf
        with self._optimizers.ema_network(index) as network:
            if self._accelerator.is_main_process and len(self._test):
                scalars = self.stage.held_out(network, self._test, self.recipe.validation_images)
                loss = scalars["held_out"] if math.isfinite(scalars["held_out"]) else math.inf
                decay = self.recipe.ema_decays[index]
                named = {f"{name}@{decay:g}": value for name, value in scalars.items()}
                self._run_log.log(self.images, scalars if index == 0 else named)
                if index == 0:
                    self._run_log.save_grid(self.images, self.stage.grid(network, self._test))
        return broadcast(loss)

    def _watch(self, scalars: dict[str, float], batch: Batch) -> None:
        """Follow the smoothed error and stop when it runs away from the best so far."""
        share = max(1 - SMOOTHING, 1 / self.stage.step)  # a plain mean in the first steps
        self._smooth += share * (scalars.get("error", 0.0) - self._smooth)
        if self.stage.step >= SETTLED:
            self._lowest = min(self._lowest, self._smooth)
        if self._smooth > DIVERGED * self._lowest:
            self._steps.stop(f"rose to {self._smooth:.3g} from {self._lowest:.3g}", batch)

    def _save_and_leave(self) -> NoReturn:
        self._save()
        raise TrainingError(
            f"Stage {self.stage.name} was interrupted after {self.images} of "
            f"{self.recipe.images} images and saved; run the same command to go on."
        )

    def _save(self) -> None:
        facts: Progress = {
            "images": self.images,
            "step": self.stage.step,
            "smooth": self._smooth,
            "lowest": _or_none(self._lowest),
            "held_out": _or_none(self._held_out),
            "average": self._average,
        }
        self.checkpoints.save(self._optimizers.state(), facts)

    def _load(self, checkpoint: Checkpoint) -> None:
        load(checkpoint, self._optimizers.state_for(checkpoint.tensors))
        facts = checkpoint.progress
        self.images, self.stage.step = int(facts["images"] or 0), int(facts["step"] or 0)
        self._smooth, self._lowest = float(facts["smooth"] or 0), _or_infinity(facts["lowest"])
        self._held_out, self._average = _or_infinity(facts["held_out"]), int(facts["average"] or 0)
        barrier()


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


def _or_none(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else float(value)
