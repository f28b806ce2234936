"""One optimizer step: parts of a batch, their losses, the update, and what happens out of memory.

It knows nothing of images or noise; a `Stage` knows nothing of optimizers or devices.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from accelerate import Accelerator

from wuerstchen.data import Batch
from wuerstchen.errors import TrainingError
from wuerstchen.models.dropout import number_dropouts
from wuerstchen.training.counting import Counting
from wuerstchen.training.distributed import all_reduce_mean, is_distributed, is_main_process
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import Draws, Loss, Stage, section_of

PARTS_FILE = "memory.json"
"""In the run's folder: into how many parts a batch was cut because memory ran out."""

log = logging.getLogger(__name__)


class Steps:
    """Takes optimizer steps. Out of memory the parts of a batch halve, and the batch stays."""

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
        self._share = stage.training.batch_size // accelerator.num_processes
        self._networks = optimizers.wrap()
        self._dropouts = number_dropouts(self._networks.values())
        self.flops = 0.0
        """Operations of a step of all processes, as last counted."""
        self._taken, self._used = 0, list[str]()
        wanted = min(max(stage.training.gradient_accumulation, _remembered(run_log)), self._share)
        self.parts = self._divisors(wanted)[0]  # memory may have been cut for a larger share

    def take(self, batch: Batch) -> dict[str, float]:
        """One step on this process's share of a batch; returns scalars for the log.

        Raises TrainingError where a loss or a gradient is not finite, or where memory runs out
        and no smaller part is left.
        """
        first = self._stage.images + self._accelerator.process_index * self._share
        self._optimizers.set_learning_rate(self._stage.step, self._stage.images)
        while True:
            self._stage.before_step()
            # For what draws by itself, such as dropout in a published text encoder.
            torch.manual_seed((self._seed * 1_000_003 + first) % 2**63)
            try:
                with self._counted():
                    scalars, used = self._backward(batch, first)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            self._halve()
        self._taken += 1
        if used != self._used:  # a discriminator joined: count anew
            self._taken, self._used = 0, used
        scalars = all_reduce_mean(scalars, self._accelerator.device)
        scalars |= self._update(used, batch) | self._stage.after_step()
        self._optimizers.ema.update()
        return scalars

    def stop(self, what: str, batch: Batch) -> NoReturn:
        """End the training over this batch."""
        keys = ", ".join(batch.keys[:8]) + (" …" if len(batch) > 8 else "")
        raise TrainingError(
            f"Stage {self._stage.name} stopped at step {self._stage.step}: the loss {what}; the "
            f"batch held {keys}. The last good checkpoint is kept; lower the stage's learning_rate "
            "or look at these images, then run the same command."
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count operations in steps 1, 2, 4, 8 … of this process: they fall while what is encoded
        is kept, and counting all of them would take time."""
        due = self._taken & (self._taken + 1) == 0
        if not due or not self._accelerator.is_main_process:
            yield
            return
        with Counting() as counting:
            yield
        self.flops = float(counting.flops * self._accelerator.num_processes)

    def _backward(self, batch: Batch, first: int) -> tuple[dict[str, float], list[str]]:
        """Gradients of all parts of the batch; scalars, and the networks that have gradients."""
        scalars: dict[str, float] = {}
        used: dict[str, None] = {}  # a set whose order is that of the losses
        parts = batch.split(self.parts)
        for index, (start, part) in enumerate(parts):
            positions = range(first + start, first + start + len(part))
            draws = Draws(self._seed, positions, self._accelerator.device)
            for dropout in self._dropouts:
                dropout.keys = draws.keys
            weight = len(part) / len(batch)
            with self._optimizers.sync_gradients(last=index == len(parts) - 1):
                for loss in self._stage.losses(self._networks, part, draws):
                    self._check_finite(loss, batch)
                    self._accelerator.backward(loss.value * weight)
                    used[loss.network] = None
                    for name, value in loss.scalars.items():
                        scalars[name] = scalars.get(name, 0.0) + float(value.detach()) * weight
        return scalars, list(used)

    def _update(self, names: Iterable[str], batch: Batch) -> dict[str, float]:
        """Step the optimizers of these networks, unless a gradient is broken; their norms."""
        norms = {name: self._optimizers.clip_grad_norm(name) for name in names}
        if not all(map(math.isfinite, norms.values())):
            self.stop("has a gradient that is not finite", batch)
        for name in names:
            self._optimizers.step(name)
        return {f"gradient_{name}": norm for name, norm in norms.items()}

    def _check_finite(self, loss: Loss, batch: Batch) -> None:
        value = self._accelerator.reduce(loss.value.detach(), "mean")
        if not torch.isfinite(value).all():
            self.stop("is not finite", batch)

    def _divisors(self, least: int) -> list[int]:
        """Numbers of equal parts that this process's share can be cut into, from `least` up."""
        return [parts for parts in range(least, self._share + 1) if self._share % parts == 0]

    def _halve(self) -> None:
        """Cut the batch into twice as many parts, and remember it for the next start.

        Several processes cannot do it in the middle of a step, in which they wait for each other:
        this one ends, the launcher ends the others, and its restart goes on in smaller parts.
        """
        name, share, before = self._stage.name, self._share, self.parts
        smaller = self._divisors(2 * before)
        if not smaller:
            recipe = self._stage.training
            keys = [key for key in ("gradient_checkpointing", "sharded") if hasattr(recipe, key)]
            advice = f"set {' or '.join(keys)} in {section_of(name)}, " if name != "a" else ""
            raise TrainingError(
                f"Stage {name} ran out of memory with parts of {share // before}, and there are no "
                f"smaller ones of its batch; {advice}use smaller networks or other devices."
            )
        self.parts = smaller[0]
        for network in self._optimizers.networks:
            self._optimizers.zero_grad(network)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._run_log.write(PARTS_FILE, json.dumps({"parts": self.parts}), everywhere=True)
        sentence = (
            f"Stage {name} ran out of memory at step {self._stage.step}; from now on a batch is "
            f"{self.parts} parts of {share // self.parts} instead of {before}, and as large as "
            "before."
        )
        if is_distributed():
            raise TrainingError(f"{sentence} A restart, or the same command, goes on with them.")
        if is_main_process():
            log.warning(sentence)


@contextmanager
def memory_explained(who: str) -> Iterator[None]:
    """Out of memory where no smaller parts of a batch help."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{who} ran out of memory in its optimizer, its averages or a look, which are the same "
            "for any part of a batch; set fewer lengths of ema, a smaller validation_images, or sharded on "
            "several devices (`wuerstchen plan` says what is needed), then run the same command: "
            "what was saved is kept."
        ) from error


def _remembered(run_log: RunLog) -> int:
    """The parts that an earlier start of this run has come to."""
    try:
        values = json.loads((run_log.folder / PARTS_FILE).read_text(encoding="utf-8"))
        return max(1, int(values["parts"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def _is_out_of_memory(error: Exception) -> bool:
    """CPU allocators have no exception of their own."""
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)
