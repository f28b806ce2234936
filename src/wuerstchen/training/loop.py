"""The training loop that all stages share: batches, steps, checkpoints, validation."""

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
from wuerstchen.signals import saving_signals
from wuerstchen.training.checkpoints import Checkpoint, Checkpoints, Progress, load
from wuerstchen.training.distributed import any_rank, barrier, broadcast, explain_lost_peers
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.progress import Throughput, progress
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import Stage, TrainState
from wuerstchen.training.train_step import TrainStep, explain_out_of_memory

DIVERGED = 20.0
"""A smoothed error this many times above its best counts as divergence."""

SMOOTHING = 0.98
"""Decay per step of the smoothed error."""

SETTLED = 20
"""Steps before the smoothed error counts: it needs images at enough random times."""

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
        self.stage, self.training = stage, stage.training
        self.state = TrainState()
        self._train, self._test, self._run_log = train, test, run_log
        self._accelerator, self._seed = accelerator, seed
        self._smooth, self._lowest = 0.0, math.inf
        self._held_out, self._average = math.inf, 0  # lowest loss, and the EMA that had it
        self._optimizers = Optimizers(stage, accelerator)
        self.checkpoints = Checkpoints(run_log.folder, self.training.keep_checkpoints)
        newest = self.checkpoints.newest()
        if newest is not None:
            self._load(newest)
        run_log.truncate(self.state.images)
        self._throughput = Throughput(self.state.images)
        self._meter: Meter | None = None
        self._step = TrainStep(stage, self._optimizers, run_log, accelerator, seed)

    def run(self, meter: Meter | None = None) -> None:
        """Train; raises TrainingError on divergence or Ctrl-C, with everything saved.

        meter  records what the training costs
        """
        self._meter = meter
        batches = BatchLoader(
            self._train,
            self.training.batch_size,
            self._seed,
            rank=self._accelerator.process_index,
            world=self._accelerator.num_processes,
            seen=self.state.images,
            images=self.stage.needs_images,
        )
        visible = self._accelerator.is_main_process
        if visible and not len(self._test):
            log.info(
                "There are no validation images, so stage %s ends with its last weights, without "
                "validation losses and grids.",
                self.stage.name,
            )
        bar = progress(self.stage.name, self.training.images, self.state.images, visible=visible)
        with bar as update, saving_signals(visible=visible) as interrupted:
            try:
                stage = f"Stage {self.stage.name}"
                with explain_lost_peers(stage), explain_out_of_memory(stage):
                    timed = self._throughput.timed(batches)
                    while self.state.images < self.training.images:
                        self._advance(next(timed))
                        update(self.state.images, self._smooth)
                        if any_rank(bool(interrupted)):  # all have to stop at the same step
                            self._save_and_stop()
            finally:
                self._run_log.close()

    @contextmanager
    def trained(self) -> Iterator[nn.Module]:
        """The EMA network that the stage ends with; every process has to enter."""
        best = self.checkpoints.best() if self.training.export == "best" else None
        if best is not None:
            log.info(
                "Stage %s ends with its weights after %s images, whose validation loss was lowest.",
                self.stage.name,
                best.progress["images"],
            )
            self._load(best)
        with self._optimizers.ema_network(self._average) as network:
            yield network

    def _advance(self, batch: Batch) -> None:
        """One optimizer step, and what is due after it."""
        state, training = self.state, self.training
        state.step += 1
        scalars = self._step.run(batch, state)
        before = state.images
        state.images += training.batch_size
        self._monitor(scalars, batch)
        if state.step % training.log_every == 0 or state.images >= training.images:
            pace = self._throughput.since_last(state.images)
            rate = {"learning_rate": self._optimizers.learning_rate}
            self._run_log.log(state.images, scalars | rate | pace)
        if self._meter is not None:
            self._meter.tick(training.batch_size, self._step.flops)
        self._validate_and_save(before)

    def _validate_and_save(self, before: int) -> None:
        """Each when due; before: images seen before this step."""
        images, training = self.state.images, self.training
        done = images >= training.images
        improved = False
        if _crossed(before, images, training.validate_every) or done:
            with self._meter.as_kind("validation") if self._meter is not None else nullcontext():
                improved = self._validate()
        if _crossed(before, images, training.checkpoint_every) or done or improved:
            if self._meter is not None:
                self._meter.save()
            self._save()

    def _validate(self) -> bool:
        """Validation losses and a grid with EMA weights; whether a loss was never lower."""
        losses = [self._validate_ema(index) for index in range(len(self._optimizers.ema))]
        lowest = min(losses)
        improved = lowest < self._held_out
        if self.training.export == "last" or improved:
            self._average = losses.index(lowest)
        if improved:
            self._held_out = lowest
        return improved

    def _validate_ema(self, index: int) -> float:
        """The validation loss of one EMA, which the first process computes and logs."""
        loss = math.inf
        with self._optimizers.ema_network(index) as network:
            if self._accelerator.is_main_process and len(self._test):
                count = self.training.validation_images
                scalars = self.stage.validate(network, self._test, count)
                loss = scalars["held_out"] if math.isfinite(scalars["held_out"]) else math.inf
                if loss == math.inf:
                    message = "The validation loss of stage %s after %s images is not finite: %s"
                    advice = "these weights are not exported as the best."
                    log.warning(message, self.stage.name, self.state.images, advice)
                decay = self.training.ema_decays[index]
                named = {f"{name}@{decay:g}": value for name, value in scalars.items()}
                self._run_log.log(self.state.images, scalars if index == 0 else named)
                if index == 0:
                    self._run_log.save_grid(self.state.images, self.stage.grid(network, self._test))
        return broadcast(loss)

    def _monitor(self, scalars: dict[str, float], batch: Batch) -> None:
        """Smooth the error, and stop when it diverges from the best so far."""
        step = self.state.step
        weight = max(1 - SMOOTHING, 1 / step)  # a plain mean in the first steps
        self._smooth += weight * (scalars.get("error", 0.0) - self._smooth)
        if step >= SETTLED:
            self._lowest = min(self._lowest, self._smooth)
        if not math.isfinite(self._smooth):  # would compare as no divergence ever after
            self._step.stop("has an error that is not finite", batch, self.state)
        if self._smooth > DIVERGED * self._lowest:
            reason = f"rose to {self._smooth:.3g} from {self._lowest:.3g}"
            self._step.stop(reason, batch, self.state)

    def _save_and_stop(self) -> NoReturn:
        self._save()
        raise TrainingError(
            f"Stage {self.stage.name} was interrupted after {self.state.images} of "
            f"{self.training.images} images and saved; run the same command to resume."
        )

    def _save(self) -> None:
        facts: Progress = {
            "images": self.state.images,
            "step": self.state.step,
            "smooth": self._smooth,
            "lowest": _or_none(self._lowest),
            "held_out": _or_none(self._held_out),
            "average": self._average,
        }
        self.checkpoints.save(self._optimizers.state(), facts)

    def _load(self, checkpoint: Checkpoint) -> None:
        load(checkpoint, self._optimizers.state_for(checkpoint.tensors))
        facts = checkpoint.progress
        self.state = TrainState(int(facts["step"] or 0), int(facts["images"] or 0))
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
