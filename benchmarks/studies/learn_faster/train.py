"""Train one stage on cached encodings, and score it at fractions of its images."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from time import process_time
from typing import Protocol

import torch
from torch import Tensor, nn

from wuerstchen.config import TrainingConfig
from wuerstchen.flops import FlopCounter
from wuerstchen.training.ema import EMA
from wuerstchen.training.muon import linear_weights, optimizers_of
from wuerstchen.training.optim import lr_factor
from wuerstchen.training.stage import ParameterGroup

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of a trial's images, after which it is scored."""

Scores = dict[str, float]


@dataclass
class Spent:
    """What a training has cost so far; scoring is not counted."""

    images: int = 0
    flops: float = 0.0
    """The optimizer's matrix products included."""
    seconds: float = 0.0
    """Processor time of one thread."""


@dataclass(frozen=True)
class Point:
    """Scores after some of the training."""

    images: int
    flops: float
    seconds: float
    ema: float
    """Decay of the scored weights."""
    scores: Scores


class Learner(Protocol):
    """A network, its parameters by learning rate, and its loss on a random batch."""

    @property
    def network(self) -> nn.Module: ...

    def parameter_groups(self) -> list[ParameterGroup]: ...

    def loss(self, batch: int, generator: torch.Generator, /) -> Tensor: ...


def train(
    learner: Learner,
    training: TrainingConfig,
    seed: int,
    spent: Spent,
    score: Callable[[], Scores] | None = None,
) -> Iterator[Point]:
    """Train, and yield the scores of the first EMA at each of `FRACTIONS`, of the others last.

    The network keeps its trained weights. Without `score` nothing is yielded.
    """
    network = learner.network.train()
    optimizers = optimizers_of(
        learner.parameter_groups(),
        linear_weights(network) if training.optimizer == "muon" else (),
        learning_rate=training.learning_rate,
        muon_rate=training.muon_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )
    ema = EMA(network, training.ema_decays)
    generator = torch.Generator().manual_seed(seed)
    steps = training.images // training.batch_size
    marks = {max(1, round(steps * fraction)) for fraction in FRACTIONS}
    flops_of_step = 0.0
    for step in range(1, steps + 1):
        start = process_time()
        with FlopCounter() if step == 1 else nullcontext() as counter:
            loss = learner.loss(training.batch_size, generator)
            loss.backward()
            _step(network, optimizers, training, step)
        if counter is not None:
            flops_of_step = float(counter.total)
        ema.update()
        spent.images += training.batch_size
        spent.flops += flops_of_step
        spent.seconds += process_time() - start
        if score is not None and step in marks:
            for index in range(len(ema) if step == steps else 1):
                with ema.swapped_in(index), torch.no_grad():
                    network.eval()
                    decay = training.ema_decays[index]
                    yield Point(spent.images, spent.flops, spent.seconds, decay, score())
                network.train()


def _step(
    network: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    training: TrainingConfig,
    step: int,
) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), training.max_grad_norm)
    factor = lr_factor(training, step, step * training.batch_size)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * factor * group["rate"]
        optimizer.step()
    network.zero_grad(set_to_none=True)
