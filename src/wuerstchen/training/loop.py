"""The training loop that all stages share: steps, checkpoints, looks.

It knows nothing of pictures or noise; a `Stage` knows nothing of optimizers or devices.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import torch
from accelerate import Accelerator
from torch import nn

from wuerstchen.data import Batch, Batches, Pairs
from wuerstchen.errors import TrainingError
from wuerstchen.training.interrupts import interrupts
from wuerstchen.training.learner import Learner, State
from wuerstchen.training.processes import largest_of_all, means_of_all
from wuerstchen.training.progress import Pace, progress
from wuerstchen.training.record import Record
from wuerstchen.training.stage import Draws, Loss, Stage

LOG_EVERY = 20
"""Optimizer steps between two log entries."""

DIVERGED = 20.0
"""A smoothed error this many times above its best is taken for divergence."""

SMOOTHING = 0.98
"""Decay per step of the smoothed error."""

SETTLED = 20
"""Steps after which the smoothed error counts: few pictures at random times say little."""


class Loop:
    """Trains one stage to its end, or until it is interrupted."""

    def __init__(
        self,
        stage: Stage,
        train: Pairs,
        test: Pairs,
        record: Record,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        self.stage, self.recipe = stage, stage.training
        self._train, self._test, self._record = train, test, record
        self._accelerator, self._seed = accelerator, seed
        self.images = 0
        self._smooth, self._best = 0.0, math.inf
        self._learner = Learner(stage, accelerator)
        self._resume()
        self._pace = Pace(self.images)
        self._wrapped = self._learner.wrap()

    def run(self) -> None:
        """Train; raises TrainingError on divergence or Ctrl-C, with everything saved."""
        process, world = self._accelerator.process_index, self._accelerator.num_processes
        batches = Batches(
            self._train,
            self.recipe.batch,
            self._seed,
            rank=process,
            world=world,
            seen=self.images,
            pictures=self.stage.needs_pictures,
        )
        talks = self._accelerator.is_main_process
        bar = progress(self.stage.name, self.recipe.images, self.images, visible=talks)
        with bar as tell, interrupts(visible=talks) as interrupted:
            try:
                for batch in self._pace.watched(batches):
                    if self.images >= self.recipe.images:
                        break
                    self._step(batch)
                    tell(self.images, self._smooth)
                    if self._anywhere(interrupted):
                        self._save_and_leave()
            finally:
                self._record.close()

    @property
    def trained(self) -> nn.Module:
        """The averaged network, ready to be exported."""
        return self._learner.averaged

    def _step(self, batch: Batch) -> None:
        self.stage.step += 1
        rank, share = self._accelerator.process_index, len(batch)
        first = self.images + rank * share
        torch.manual_seed((self._seed * 1_000_003 + first) % 2**63)  # for dropout
        self._learner.set_rate(self.stage.step, self.images)
        scalars: dict[str, float] = {}
        used: dict[str, None] = {}  # a set whose order is that of the losses
        micros = batch.split(self.recipe.accumulate)
        for index, (start, micro) in enumerate(micros):
            positions = range(first + start, first + start + len(micro))
            draws = Draws(self._seed, positions, self._accelerator.device)
            weight = len(micro) / share
            with self._without_exchange(last=index == len(micros) - 1):
                for loss in self.stage.losses(self._wrapped, micro, draws):
                    self._check_finite(loss, batch)
                    self._accelerator.backward(loss.value * weight)
                    used[loss.network] = None
                    for name, value in loss.scalars.items():
                        scalars[name] = scalars.get(name, 0.0) + float(value.detach()) * weight
        scalars = means_of_all(scalars, self._accelerator.device)
        scalars |= self._update(used, batch) | self.stage.after_step()
        self._learner.average()
        before, self.images = self.images, self.images + self.recipe.batch
        self._watch(scalars, batch)
        if self.stage.step % LOG_EVERY == 0 or self.images >= self.recipe.images:
            pace = self._pace.since_last(self.images)
            self._record.log(self.images, {**scalars, "learning_rate": self._learner.rate, **pace})
        self._save_and_look(before)

    def _update(self, names: Iterable[str], batch: Batch) -> dict[str, float]:
        """Step the optimizers of these networks, unless a gradient is broken; their norms."""
        norms = {name: self._learner.clip(name) for name in names}
        if not all(map(math.isfinite, norms.values())):
            self._stop("has a gradient that is not finite", batch)
        for name in names:
            self._learner.update(name)
        return {f"gradient_{name}": norm for name, norm in norms.items()}

    def _save_and_look(self, before: int) -> None:
        done = self.images >= self.recipe.images
        if _crossed(before, self.images, self.recipe.save_every) or done:
            self._save()
        if _crossed(before, self.images, self.recipe.look_every) or done:
            self._look()

    def _look(self) -> None:
        """Held-out loss and a grid, by the averaged weights, on the first process."""
        if self._accelerator.is_main_process and len(self._test):
            network = self.trained
            self._record.log(
                self.images, self.stage.held_out(network, self._test, self.recipe.look_at)
            )
            self._record.grid(self.images, self.stage.grid(network, self._test))
        self._accelerator.wait_for_everyone()

    def _check_finite(self, loss: Loss, batch: Batch) -> None:
        value = self._accelerator.reduce(loss.value.detach(), "mean")
        if not torch.isfinite(value).all():
            self._stop("is not finite", batch)

    def _watch(self, scalars: dict[str, float], batch: Batch) -> None:
        """Follow the smoothed error and stop when it runs away from the best so far."""
        share = max(1 - SMOOTHING, 1 / self.stage.step)  # a plain mean in the first steps
        self._smooth += share * (scalars.get("error", 0.0) - self._smooth)
        if self.stage.step >= SETTLED:
            self._best = min(self._best, self._smooth)
        if self._smooth > DIVERGED * self._best:
            self._stop(f"rose to {self._smooth:.3g} from {self._best:.3g}", batch)

    def _anywhere(self, interrupted: Sequence[bool]) -> bool:
        """Whether any process was interrupted: all of them have to stop at the same step."""
        heard = torch.tensor([float(len(interrupted))], device=self._accelerator.device)
        return bool(largest_of_all(heard))

    def _save_and_leave(self) -> NoReturn:
        self._save()
        raise TrainingError(
            f"Stage {self.stage.name} was interrupted after {self.images} of "
            f"{self.recipe.images} pictures and saved; run the same command to go on."
        )

    def _stop(self, what: str, batch: Batch) -> NoReturn:
        keys = ", ".join(batch.keys[:8]) + (" …" if len(batch) > 8 else "")
        raise TrainingError(
            f"Stage {self.stage.name} stopped at step {self.stage.step}: the loss {what}; the "
            f"batch held {keys}. The last good checkpoint is kept; lower the stage's learning_rate "
            "or look at these pictures, then run the same command."
        )

    @contextmanager
    def _without_exchange(self, *, last: bool) -> Iterator[None]:
        """Processes exchange gradients only after the last part of a step."""
        with ExitStack() as stack:
            if not last:
                for network in self._wrapped.values():
                    stack.enter_context(self._accelerator.no_sync(network))
            yield

    def _save(self) -> None:
        self._record.save(
            self.images,
            {
                "images": self.images,
                "step": self.stage.step,
                "smooth": self._smooth,
                "best": self._best,
                **self._learner.state(),
            },
        )

    def _resume(self) -> None:
        state = self._record.newest()
        if state is not None:
            try:
                self._load(state)
            except (RuntimeError, KeyError, ValueError) as error:
                reason = str(error).splitlines()[-1].strip().rstrip(".")
                raise TrainingError(
                    f"{self._record.folder}: the checkpoint there is of other networks than this "
                    f"config makes ({reason}); restore the config, or choose another output folder."
                ) from None
        self._record.resume_at(self.images)

    def _load(self, state: State) -> None:
        self._learner.load(state)
        self.images, self.stage.step = int(str(state["images"])), int(str(state["step"]))
        self._smooth, self._best = float(str(state["smooth"])), float(str(state["best"]))


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every
