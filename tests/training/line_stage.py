"""A stage that fits a line: everything of the loop, and nothing of images, can be seen by it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wuerstchen.config import TrainingConfig
from wuerstchen.data import Batch, Pairs
from wuerstchen.models.dropout import Dropout
from wuerstchen.noise import RandomStreams
from wuerstchen.training.loop import Loop
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import Loss, Networks, Stage, TrainState


class Line(Stage):
    """Tells an image's brightness from its mean colour; `disturb` may spoil the loss of a step."""

    name = "a"
    trained = "line"

    def __init__(self, recipe: TrainingConfig, width: int = 1) -> None:
        self.training = recipe
        torch.manual_seed(0)
        self.line = nn.Sequential(nn.Linear(3, width), Dropout(0.2), nn.Linear(width, 1))
        self.disturb: Callable[[int, Tensor], Tensor] = lambda step, value: value
        self.seen: list[str] = []
        self.losses_held_out: Iterator[float] = itertools.repeat(1.0)
        self.history: list[Tensor] = []

    def networks(self) -> dict[str, nn.Module]:
        return {"line": self.line}

    def frozen_networks(self) -> dict[str, nn.Module]:
        return {}

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        self.seen += batch.keys
        colours = batch.images.mean(dim=(2, 3))
        noise = streams(colours)
        error = (networks["line"](colours + 0.1 * noise) - colours.mean(1, keepdim=True)).square()
        value = self.disturb(state.step, error.mean())
        yield Loss("line", value, {"error": value})

    def after_step(self, state: TrainState) -> dict[str, float]:
        self.history.append(self.line[0].weight.detach().clone())
        return {}

    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        return {"held_out": next(self.losses_held_out)}

    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        return torch.zeros(3, 4, 4)

    def export(self, network: nn.Module, folder: Path) -> None:
        raise AssertionError("the loop exports nothing")


class Judged(Line):
    """With a second network that joins later, as the discriminator of Stage A does."""

    def __init__(self, recipe: TrainingConfig) -> None:
        super().__init__(recipe)
        self.discriminator = nn.Linear(1, 1)

    def networks(self) -> dict[str, nn.Module]:
        return {**super().networks(), "discriminator": self.discriminator}

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        yield from super().losses(networks, batch, streams, state)
        if state.images >= 40:
            opinion = networks["discriminator"](torch.ones(1, 1)).square().mean()
            yield Loss("discriminator", opinion, {})


def recipe(**changes: object) -> TrainingConfig:
    values = {
        "images": 80,
        "batch_size": 4,
        "warmup_steps": 2,
        "checkpoint_every": 8,
        "validate_every": 20,
    }
    return TrainingConfig.model_validate(
        {**values, "learning_rate": 1e-2, "ema_decay": 0.5, **changes}
    )


def loop_of(stage: Stage, splits: tuple[Pairs, Pairs], folder: Path) -> Loop:
    run_log = RunLog(folder, writes=True)
    run_log.write("config.yaml", "")
    return Loop(stage, *splits, run_log, Accelerator(cpu=True), seed=0)


def state_of(loop: Loop) -> dict[str, Tensor]:
    with loop.trained() as network:
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
