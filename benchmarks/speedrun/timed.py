"""Train a stage for a fixed time, with its learning rate by the clock."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.speedrun.streams import BatchStreams
from wuerstchen.data import Batch
from wuerstchen.flops import FlopCounter
from wuerstchen.training.ema import EMA
from wuerstchen.training.muon import linear_weights, optimizers_of
from wuerstchen.training.optim import Bf16Autocast, move_to
from wuerstchen.training.stage import Stage, TrainState

COUNTED_STEP = 30
"""The step whose operations are counted, after all that happens only at the start."""

LOG_EVERY = 50


@dataclass
class TimedRun:
    """What a stage took."""

    stage: str
    steps: int
    images: int
    seconds: float
    flops: float
    """Operations of all steps."""
    loss: float
    """Mean of the last logged steps."""


def train_for(
    stage: Stage,
    seconds: float,
    batches: Callable[[], Batch],
    device: torch.device,
    seed: int,
    log: Path,
    *,
    muon: bool,
    bf16: bool,
    counted: bool,
) -> TimedRun:
    """Train until the time is over; at the end the networks have their EMA weights.

    batches  makes the next batch
    muon     for the matrices of linear layers; AdamW for all else
    counted  count operations, which compiled networks do not show
    """
    networks = stage.networks()
    for network in (*networks.values(), *stage.frozen_networks().values()):
        move_to(network, device)
    for network in networks.values():
        network.train()
    called = {n: Bf16Autocast(net) if bf16 else net for n, net in networks.items()}
    optimizers = {name: _optimizers(stage, name, muon=muon) for name in networks}
    ema = EMA(networks[stage.trained], stage.training.ema_decays)
    host = torch.Generator().manual_seed(seed)
    on_device = torch.Generator(device).manual_seed(seed)
    state = TrainState()
    run = TimedRun(stage.name, 0, 0, 0.0, 0.0, 0.0)
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        state.step += 1
        factor = min(1.0, state.step / stage.training.warmup_steps) * (1 - spent / seconds)
        batch = batches()
        streams = BatchStreams(len(batch), host, on_device)
        counts = counted and state.step == COUNTED_STEP
        losses = []
        with FlopCounter() if counts else nullcontext() as counter:
            for loss in stage.losses(called, batch, streams, state):
                loss.value.backward()
                losses.append(loss)
        if counter is not None:
            run.flops = float(counter.total)
        for loss in losses:
            _step(stage, loss.network, optimizers[loss.network], factor)
        stage.after_step(state)
        ema.update()
        state.images += len(batch)
        if state.step % LOG_EVERY == 0:  # reading the loss waits for the device
            run.loss = float(losses[0].scalars["error"].detach())
            run.steps, run.images = state.step, state.images
            run.seconds = time.perf_counter() - start
            with log.open("a", encoding="utf-8") as file:
                print(json.dumps(asdict(run)), file=file)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    run.steps, run.images, run.seconds = state.step, state.images, time.perf_counter() - start
    run.flops *= state.step
    _finish(stage, ema)
    return run


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


def _optimizers(stage: Stage, name: str, *, muon: bool) -> list[torch.optim.Optimizer]:
    training = stage.training
    return optimizers_of(
        stage.parameter_groups(name),
        linear_weights(stage.networks()[name]) if muon else (),
        learning_rate=training.learning_rate,
        muon_rate=training.muon_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )
