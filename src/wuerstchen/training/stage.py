"""The interface between the training loop and a stage, and what the stages share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, final

import torch
from torch import Tensor, nn

from wuerstchen.config import Config, TrainingConfig
from wuerstchen.data import Batch, Pairs
from wuerstchen.noise import RandomStreams
from wuerstchen.training.loss_weighting import Weighting

RunName = Literal["a", "b-pretraining", "b", "c-pretraining", "c"]
"""The trainings that have a run folder: the stages, and the pretrainings before B and C."""

RUN_ORDER: tuple[RunName, ...] = ("a", "b-pretraining", "b", "c-pretraining", "c")

Networks = Mapping[str, nn.Module]
"""The networks by name, as the loop wrapped them for its devices."""

GRID_COLUMNS = 8
"""Images side by side in a grid."""

AT_ONCE = 16
"""Validation batch size for Stage A; a full-size image takes gigabytes."""


class Loss(NamedTuple):
    """One backward pass."""

    network: str
    """Whose optimizer steps on it."""
    value: Tensor
    scalars: dict[str, Tensor]
    """For the log; `error`, where present, is monitored for divergence."""


class ParameterGroup(NamedTuple):
    parameters: list[nn.Parameter]
    rate: float
    """Multiplies the learning rate."""


@final
@dataclass(slots=True)
class TrainState:
    """Progress of a run. The loop owns it and passes it on."""

    step: int = 0
    """Optimizer steps, the current one included."""
    images: int = 0
    """Images seen before the current step."""


STEADY_STEP = 10**9
"""A step late enough for everything that a stage does only at its start to be over."""


class Stage(ABC):
    """One of the trainings, pretrainings included. Subclasses are final.

    A stage is given its networks and opens no files, and `losses` never reads a value off the
    device: so `wuerstchen plan` can run it on the meta device.
    """

    name: RunName
    trained: str
    """Name of the network whose EMA weights are exported."""
    training: TrainingConfig
    needs_images: bool = True
    """Whether batches must hold pixels."""

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Every network that is trained, each with an optimizer of its own."""

    @abstractmethod
    def frozen_networks(self) -> dict[str, nn.Module]:
        """The other networks that move to the device, those for validation included."""

    def parameter_groups(self, name: str) -> list[ParameterGroup]:
        """Trained parameters of network `name`, by learning rate."""
        return [ParameterGroup(trained_parameters(self.networks()[name]), 1.0)]

    @abstractmethod
    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        """The losses of one batch; the loop runs backward on each before it asks for the next."""

    def workloads(self) -> list[tuple[float, TrainState]]:
        """Fractions of the run that compute different things, each with a state in it.

        The last one needs the most memory.
        """
        return [(1.0, TrainState(STEADY_STEP, self.training.images))]

    def state(self) -> dict[str, Tensor]:
        """State beyond the networks: saved in checkpoints, which are loaded into these tensors."""
        return {}

    def before_step(self) -> None:  # noqa: B027  # most stages collect nothing
        """Discard what was collected in a step that ran out of memory and is repeated."""

    def after_step(self, state: TrainState) -> dict[str, float]:
        """Corrections after an optimizer step; returns scalars for the log."""
        del state
        return {}

    @abstractmethod
    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        """Losses on `count` held-out images, with fixed noise and times."""

    @abstractmethod
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """(3, H, W) image in [0, 1] that shows what the stage has learned."""

    @abstractmethod
    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the stage's networks into the model folder."""


class DiffusionStage(Stage):
    """A stage that learns to predict noise, whose loss weighs the noise levels."""

    weighting: Weighting

    def state(self) -> dict[str, Tensor]:
        return self.weighting.state()

    def before_step(self) -> None:
        self.weighting.before_step()

    def after_step(self, state: TrainState) -> dict[str, float]:
        del state
        return self.weighting.after_step()


def section_of(name: RunName) -> str:
    """The config section of a run."""
    stage, _, pretraining = name.partition("-")
    return f"stage_{stage}.{pretraining or 'training'}"


def training_of(config: Config, name: RunName) -> TrainingConfig | None:
    """The training section of a run; None for a pretraining that is not configured."""
    sections: dict[RunName, TrainingConfig | None] = {
        "a": config.stage_a.training,
        "b-pretraining": config.stage_b.pretraining,
        "b": config.stage_b.training,
        "c-pretraining": config.stage_c.pretraining,
        "c": config.stage_c.training,
    }
    return sections[name]


class Rows(Protocol):
    """Encodings of the training images, by index."""

    def rows(self, numbers: Sequence[int], /) -> Tensor: ...


@final
class CachedEncoder:
    """What a frozen network makes of training images: read from disk, from memory, or computed.

    With any memory it encodes image by image: in a batch the last bits would depend on the other
    images, and a resumed run, whose cache starts empty, would differ from an uninterrupted one.
    """

    def __init__(
        self, encode: Callable[[Tensor], Tensor], cache_gib: float, stored: Rows | None = None
    ) -> None:
        self._encode, self._stored = encode, stored
        self._room = int(cache_gib * 2**30)
        self._one_by_one = self._room > 0
        self._kept: dict[int, Tensor] = {}

    @property
    def needs_images(self) -> bool:
        return self._stored is None

    def __call__(self, batch: Batch, device: torch.device) -> Tensor:
        if self._stored is not None:
            return self._stored.rows(batch.indices).to(device)
        if not self._one_by_one:
            return self._encode(batch.images.to(device)).contiguous()  # as cached ones are
        missing = [row for row, index in enumerate(batch.indices) if index not in self._kept]
        fresh: dict[int, Tensor] = {}
        if missing:
            images = batch.images[missing].to(device)
            encoded = torch.cat([self._encode(image) for image in images.split(1)]).cpu()
            fresh = {batch.indices[row]: value for row, value in zip(missing, encoded, strict=True)}
            for index, value in fresh.items():
                self._room -= value.nbytes
                if self._room >= 0:
                    self._kept[index] = value.clone()
        rows = [fresh[i] if i in fresh else self._kept[i] for i in batch.indices]
        return torch.stack(rows).to(device)


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


def held_out_batch(test: Pairs, count: int) -> Batch:
    """The first `count` images of the test split's main shape, each with its first caption."""
    indices = test.with_most_common_shape(count)
    images = torch.stack([test.image(i) for i in indices]).float() / 255  # (B, 3, S, S)
    captions = [test[i].captions[0] for i in indices]
    return Batch(images, captions, [test[i].key for i in indices], indices)


def even_times(count: int, device: torch.device) -> Tensor:
    """(count,) times evenly spaced in (0, 1): the fixed times of validation losses."""
    return (torch.arange(count, device=device) + 0.5) / count
