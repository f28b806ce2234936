"""The training loop that all stages share: steps, averages, checkpoints, looks.

It knows nothing of pictures or noise; a `Stage` knows nothing of optimizers or devices.
"""

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wuerstchen.config import TrainingConfig
from wuerstchen.data import Batch, Batches, Pairs
from wuerstchen.errors import TrainingError
from wuerstchen.training.processes import largest_of_all, means_of_all, share_batch_norms
from wuerstchen.training.record import Record, progress_bar
from wuerstchen.training.stage import Draws, Loss, Stage

LOG_EVERY = 20
"""Optimizer steps between two log entries."""

DIVERGED = 20.0
"""A smoothed error this many times above its best is taken for divergence."""

SMOOTHING = 0.98

Average = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]
"""(kept, new, updates so far): moves the kept weights towards the new ones."""


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
        self._networks = stage.networks()
        for network in self._networks.values():
            network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if accelerator.num_processes > 1:
                share_batch_norms(network)
            network.train()  # weights that training starts from come in eval mode
        self._average = AveragedModel(
            self._networks[stage.trained],
            multi_avg_fn=_averager(self.recipe.ema),
            use_buffers=True,  # the statistics of BatchNorms have to belong to the averaged weights
        )
        self._optimizers = {name: self._optimizer(name) for name in self._networks}
        self._resume()
        self._wrapped = {
            name: accelerator.prepare_model(network) for name, network in self._networks.items()
        }

    def run(self) -> None:
        """Train; raises TrainingError on divergence or Ctrl-C, with everything saved."""
        process, world = self._accelerator.process_index, self._accelerator.num_processes
        batches = Batches(
            self._train, self.recipe.batch, self._seed, rank=process, world=world, seen=self.images
        )
        started, before = time.monotonic(), self.images
        bar = progress_bar(visible=self._accelerator.is_main_process)
        with bar, _interrupts() as interrupted:
            task = bar.add_task(
                "",
                total=self.recipe.images,
                completed=before,
                stage=self.stage.name,
                loss=self._smooth,
                speed=0.0,
            )
            try:
                for batch in batches:
                    if self.images >= self.recipe.images:
                        break
                    self._step(batch)
                    speed = (self.images - before) / (time.monotonic() - started)
                    bar.update(task, completed=self.images, loss=self._smooth, speed=speed)
                    if self._anywhere(interrupted):
                        self._save_and_leave()
            finally:
                self._record.close()

    @property
    def trained(self) -> nn.Module:
        """The averaged network, ready to be exported."""
        network: nn.Module = self._average.module
        return network.eval()

    def _step(self, batch: Batch) -> None:
        self.stage.step += 1
        rank, share = self._accelerator.process_index, len(batch)
        first = self.images + rank * share
        torch.manual_seed((self._seed * 1_000_003 + first) % 2**63)  # for dropout
        self._set_learning_rate()
        scalars: dict[str, float] = {}
        used: dict[str, None] = {}  # a set whose order is that of the losses
        micros = _split(batch, self.recipe.accumulate)
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
        norms = {name: self._clip(name, batch) for name in used}
        for name, norm in norms.items():
            self._update(name)
            scalars[f"gradient_{name}"] = norm
        scalars |= self.stage.after_step()
        self._average.update_parameters(self._networks[self.stage.trained])
        before, self.images = self.images, self.images + self.recipe.batch
        self._watch(scalars, batch)
        if self.stage.step % LOG_EVERY == 0 or self.images >= self.recipe.images:
            rate = next(iter(self._optimizers.values())).param_groups[0]["lr"]
            self._record.log(self.images, {**scalars, "learning_rate": rate})
        self._save_and_look(before)

    def _clip(self, name: str, batch: Batch) -> float:
        parameters = [p for group in self._optimizers[name].param_groups for p in group["params"]]
        norm = float(self._accelerator.clip_grad_norm_(parameters, self.recipe.clip))
        if not math.isfinite(norm):
            self._stop("has a gradient that is not finite", batch)
        return norm

    def _update(self, name: str) -> None:
        self._optimizers[name].step()
        self._optimizers[name].zero_grad(set_to_none=True)

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
        error = scalars.get("error", 0.0)
        first = self._smooth == 0.0
        self._smooth = error if first else SMOOTHING * self._smooth + (1 - SMOOTHING) * error
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

    def _set_learning_rate(self) -> None:
        rate = self.recipe.learning_rate * schedule(self.recipe, self.stage.step, self.images)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]

    def _optimizer(self, name: str) -> torch.optim.Optimizer:
        groups = [
            {"params": group.parameters, "rate": group.rate}
            for group in self.stage.parameter_groups(name)
        ]
        recipe = self.recipe
        return torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
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
                "networks": {name: net.state_dict() for name, net in self._networks.items()},
                "average": self._average.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self._optimizers.items()},
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

    def _load(self, state: dict[str, object]) -> None:
        saved = copy.copy(state)
        networks, optimizers = saved["networks"], saved["optimizers"]
        assert isinstance(networks, dict) and isinstance(optimizers, dict)
        for name, network in self._networks.items():
            network.load_state_dict(networks[name])
            self._optimizers[name].load_state_dict(optimizers[name])
        self._average.load_state_dict(saved["average"])  # type: ignore[arg-type]
        self.images, self.stage.step = int(str(saved["images"])), int(str(saved["step"]))
        self._smooth, self._best = float(str(saved["smooth"])), float(str(saved["best"]))


def schedule(recipe: TrainingConfig, step: int, images: int) -> float:
    """What the learning rate is multiplied by: linear warm-up, then constant or cosine."""
    warm = min(1.0, step / max(1, recipe.warmup))
    if recipe.decay == "constant":
        return warm
    return warm * (0.505 + 0.495 * math.cos(math.pi * min(1.0, images / recipe.images)))


def _averager(decay: float) -> Average:
    """Exponential average whose memory grows with the run, up to `decay`.

    Without that growth a short run would still remember its random start.
    """

    @torch.no_grad()
    def average(kept: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        if not kept[0].is_floating_point():  # counters
            torch._foreach_copy_(list(kept), list(new))
            return
        forget = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(kept), list(new), forget)

    return average


def _split(batch: Batch, parts: int) -> list[tuple[int, Batch]]:
    """Cut a batch into `parts` equal ones, each with the place where it starts."""
    size = max(1, math.ceil(len(batch) / parts))
    return [
        (
            start,
            Batch(
                batch.images[start : start + size],
                batch.captions[start : start + size],
                batch.keys[start : start + size],
                batch.indices[start : start + size],
            ),
        )
        for start in range(0, len(batch), size)
    ]


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


@contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """A list that Ctrl-C or SIGTERM fills, so that the step at hand is finished first."""
    pressed: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        pressed.append(True)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
