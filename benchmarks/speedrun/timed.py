"""Train a stage for a fixed time, with its learning rate by the clock."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.speedrun.report import StageResult
from benchmarks.speedrun.streams import BatchStreams
from wuerstchen.data import Batch
from wuerstchen.flops import FlopCounter
from wuerstchen.receipts import Meter
from wuerstchen.training.ema import EMA
from wuerstchen.training.muon import linear_weights, optimizers_of
from wuerstchen.training.optim import Bf16Autocast, autocast_dtype, move_to
from wuerstchen.training.stage import Loss, Stage, TrainState

COUNTED_STEP = 30
"""The step whose operations are counted, after all that happens only at the start."""

LOG_EVERY = 50


@dataclass(frozen=True)
class Journal:
    """Where the progress of a stage is written."""

    log: Path
    meter: Meter
    save: Callable[[], None]
    """Writes the report, so that the time of a run that is killed counts."""

    def add(self, stage: str, result: StageResult) -> None:
        """A line of the log."""
        with self.log.open("a", encoding="utf-8") as file:
            print(json.dumps({"stage": stage, **result.model_dump()}), file=file)
        self.save()


def train_for(
    stage: Stage,
    seconds: float,
    batches: Callable[[], Batch],
    device: torch.device,
    seed: int,
    journal: Journal,
    *,
    compiled: bool,
) -> StageResult:
    """Train until the time is over; at the end the networks have their EMA weights.

    batches   makes the next batch
    compiled  whether a network is, which is run eagerly where operations are counted
    """
    networks = stage.networks()
    for network in (*networks.values(), *stage.frozen_networks().values()):
        move_to(network, device)
    for network in networks.values():
        network.train()
    bf16 = autocast_dtype(stage.training) is torch.bfloat16
    called = {n: Bf16Autocast(net) if bf16 else net for n, net in networks.items()}
    optimizers = {name: _optimizers(stage, name) for name in networks}
    ema = EMA(networks[stage.trained], stage.training.ema_decays)
    host = torch.Generator().manual_seed(seed)
    on_device = torch.Generator(device).manual_seed(seed)
    state = TrainState()
    flops_of_step = loss = 0.0
    losses = list[Loss]()
    start = time.perf_counter()

    def result() -> StageResult:
        return StageResult(
            steps=state.step,
            images=state.images,
            seconds=time.perf_counter() - start,
            flops=flops_of_step * state.step,
            loss=loss,
        )

    while (spent := time.perf_counter() - start) < seconds:
        state.step += 1
        factor = min(1.0, state.step / stage.training.warmup_steps) * (1 - spent / seconds)
        batch = batches()
        streams = BatchStreams(len(batch), host, on_device)
        losses = []
        with _counter(compiled) if state.step == COUNTED_STEP else nullcontext() as counter:
            for each in stage.losses(called, batch, streams, state):
                each.value.backward()
                losses.append(each)
        if counter is not None:
            flops_of_step = float(counter.total)
        for each in losses:
            _step(stage, each.network, optimizers[each.network], factor)
        stage.after_step(state)
        ema.update()
        state.images += len(batch)
        journal.meter.tick(images=len(batch))
        if state.step % LOG_EVERY == 0:  # reading the loss waits for the device
            loss = _error_of(losses)
            journal.add(stage.name, result())
    loss = _error_of(losses)
    done = result()
    journal.meter.tick(flops=done.flops)
    _finish(stage, ema)
    return done


@contextmanager
def _counter(compiled: bool) -> Iterator[FlopCounter]:
    """Compiled networks run eagerly: they do not show their operations."""
    with ExitStack() as stack:
        if compiled:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield stack.enter_context(FlopCounter())


def _error_of(losses: Sequence[Loss]) -> float:
    """Of the first loss; waits for the device."""
    return float(losses[0].scalars["error"].detach()) if losses else 0.0


def _step(
    stage: Stage, name: str, optimizers: Sequence[torch.optim.Optimizer], factor: float
) -> None:
    """Clip the gradients of a network and step at `factor` times the learning rate."""
    nn.utils.clip_grad_norm_(stage.networks()[name].parameters(), stage.training.max_grad_norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = stage.training.learning_rate * factor * group["rate"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _finish(stage: Stage, ema: EMA) -> None:
    """Give the trained network its EMA weights, and end training mode."""
    network = stage.networks()[stage.trained]
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    with torch.no_grad():
        for name, value in ema.weights(0):
            tensors[name].copy_(value)
    for each in stage.networks().values():
        each.eval()


def _optimizers(stage: Stage, name: str) -> list[torch.optim.Optimizer]:
    training = stage.training
    return optimizers_of(
        stage.parameter_groups(name),
        linear_weights(stage.networks()[name]) if training.optimizer == "muon" else (),
        learning_rate=training.learning_rate,
        muon_rate=training.muon_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )
