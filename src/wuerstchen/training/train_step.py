"""One optimizer step: micro-batches, losses, the update, and what happens when memory runs out."""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn, final

import torch
from accelerate import Accelerator

from wuerstchen.data import Batch
from wuerstchen.errors import TrainingError
from wuerstchen.flops import FlopCounter
from wuerstchen.models.dropout import number_dropouts
from wuerstchen.noise import global_seed, streams_at
from wuerstchen.parsing import parse_object, read_bytes
from wuerstchen.training.distributed import all_reduce_mean, is_distributed, is_main_process
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import Loss, Stage, TrainState, section_of

MICRO_BATCH_FILE = "memory.json"
"""In the run's folder: into how many micro-batches a batch was split as memory ran out."""

log = logging.getLogger(__name__)


@final
class TrainStep:
    """Runs optimizer steps. Out of memory it halves the micro-batches and keeps the batch."""

    def __init__(
        self,
        stage: Stage,
        optimizers: Optimizers,
        run_log: RunLog,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        self._stage, self._optimizers, self._run_log = stage, optimizers, run_log
        self._accelerator, self._seed = accelerator, seed
        self._batch = stage.training.batch_size // accelerator.num_processes
        self._networks = optimizers.wrap()
        self._dropouts = number_dropouts(self._networks.values())
        self.flops = 0.0
        """Operations of a step of all processes, as last counted."""
        self._counted_steps, self._used = 0, list[str]()
        smallest = max(stage.training.gradient_accumulation, _remembered(run_log))
        # More micro-batches than images are left over from a run with fewer processes.
        self.accumulation = self._divisors(min(smallest, self._batch))[0]
        """Micro-batches of a step."""

    def run(self, batch: Batch, state: TrainState) -> dict[str, float]:
        """One step on this process's part of a batch; returns scalars for the log.

        Raises TrainingError where a loss or a gradient is not finite, or where memory runs out
        and the micro-batches cannot be smaller.
        """
        first = state.images + self._accelerator.process_index * self._batch
        self._optimizers.set_learning_rate(state.step, state.images)
        while True:
            self._stage.before_step()
            # For layers with torch's own dropout, as in a published text encoder.
            torch.manual_seed(global_seed(self._seed, first))
            try:
                with self._counted():
                    scalars, used = self._backward(batch, first, state)
                break
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            self._halve(state)
        self._counted_steps += 1
        if used != self._used:  # a discriminator joined: count anew
            self._counted_steps, self._used = 0, used
        scalars = all_reduce_mean(scalars, self._accelerator.device)
        scalars |= self._update(used, batch, state) | self._stage.after_step(state)
        self._optimizers.ema.update()
        return scalars

    def stop(self, reason: str, batch: Batch, state: TrainState) -> NoReturn:
        """End the training over this batch; reason: what its loss did."""
        keys = ", ".join(batch.keys[:8]) + (" …" if len(batch) > 8 else "")
        raise TrainingError(
            f"Stage {self._stage.name} stopped at step {state.step}: the loss {reason}; the batch "
            f"held {keys}. The last good checkpoint is kept; lower the stage's learning_rate or "
            "inspect these images, then run the same command."
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count operations in steps 1, 2, 4, 8 … of this process: they fall as encodings are
        cached, and counting every step would take time."""
        due = self._counted_steps & (self._counted_steps + 1) == 0
        if not due or not self._accelerator.is_main_process:
            yield
            return
        with FlopCounter() as counter:
            yield
        self.flops = float(counter.total * self._accelerator.num_processes)

    def _backward(
        self, batch: Batch, first: int, state: TrainState
    ) -> tuple[dict[str, float], list[str]]:
        """Gradients of the whole batch; scalars, and the networks that have gradients."""
        scalars: dict[str, float] = {}
        used: dict[str, None] = {}  # a set in the order of the losses
        micro_batches = batch.split(self.accumulation)
        for index, (start, micro) in enumerate(micro_batches):
            streams = streams_at(self._seed, range(first + start, first + start + len(micro)))
            for dropout in self._dropouts:
                dropout.keys = streams.seeds
            weight = len(micro) / len(batch)
            with self._optimizers.sync_gradients(last=index == len(micro_batches) - 1):
                for loss in self._stage.losses(self._networks, micro, streams, state):
                    self._check_finite(loss, batch, state)
                    self._accelerator.backward(loss.value * weight)
                    used[loss.network] = None
                    for name, value in loss.scalars.items():
                        scalars[name] = scalars.get(name, 0.0) + float(value.detach()) * weight
        return scalars, list(used)

    def _update(self, names: Iterable[str], batch: Batch, state: TrainState) -> dict[str, float]:
        """Step the optimizers of these networks, if all gradients are finite; their norms."""
        norms = {name: self._optimizers.clip_grad_norm(name) for name in names}
        if not all(map(math.isfinite, norms.values())):
            self.stop("has a gradient that is not finite", batch, state)
        for name in names:
            self._optimizers.step(name)
        return {f"gradient_{name}": norm for name, norm in norms.items()}

    def _check_finite(self, loss: Loss, batch: Batch, state: TrainState) -> None:
        value = self._accelerator.reduce(loss.value.detach(), "mean")
        if not torch.isfinite(value).all():
            self.stop("is not finite", batch, state)

    def _divisors(self, smallest: int) -> list[int]:
        """Numbers of equal micro-batches of this process's batch, from `smallest` up."""
        return [n for n in range(smallest, self._batch + 1) if self._batch % n == 0]

    def _halve(self, state: TrainState) -> None:
        """Split the batch into twice as many micro-batches, and remember it for the next start.

        Several processes cannot do so in the middle of a step, in which they wait for each other:
        this one ends, the launcher ends the others, and its restart resumes with the smaller ones.
        """
        name, before = self._stage.name, self.accumulation
        smaller = self._divisors(2 * before)
        if not smaller:
            training = self._stage.training
            keys = [key for key in ("gradient_checkpointing", "sharded") if hasattr(training, key)]
            advice = f"set {' or '.join(keys)} in {section_of(name)}, " if name != "a" else ""
            raise TrainingError(
                f"Stage {name} ran out of memory with micro-batches of {self._batch // before}, "
                f"and its batch cannot be split further; {advice}use smaller networks or other "
                "devices."
            )
        self.accumulation = smaller[0]
        for network in self._optimizers.networks:
            self._optimizers.zero_grad(network)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        content = json.dumps({"parts": self.accumulation})
        self._run_log.write(MICRO_BATCH_FILE, content, everywhere=True)
        sentence = (
            f"Stage {name} ran out of memory at step {state.step}; from now on it uses "
            f"{self.accumulation} micro-batches of {self._batch // self.accumulation} images "
            f"instead of {before}; the batch size is unchanged."
        )
        if is_distributed():
            raise TrainingError(f"{sentence} A restart, or the same command, resumes with them.")
        if is_main_process():
            log.warning(sentence)


@contextmanager
def explain_out_of_memory(who: str) -> Iterator[None]:
    """Raise TrainingError where memory runs out and smaller micro-batches would not help."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{who} ran out of memory in its optimizer, its EMA weights or its validation, whose "
            "memory does not depend on the micro-batch; set fewer decays in ema_decay, a smaller "
            "validation_images, or sharded on several devices (`wuerstchen plan` shows what is "
            "needed), then run the same command: what was saved is kept."
        ) from error


def _remembered(run_log: RunLog) -> int:
    """The number of micro-batches that an earlier start of this run arrived at."""
    try:
        parts = parse_object(read_bytes(run_log.folder / MICRO_BATCH_FILE))["parts"]
        return max(1, int(str(parts)))
    except (OSError, ValueError, KeyError):
        return 1


def _is_out_of_memory(error: Exception) -> bool:
    """CPU allocators have no exception of their own."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)
