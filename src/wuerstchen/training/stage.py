"""What the loop knows of a stage, and what a stage knows of the loop: very little."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wuerstchen.config import TrainingConfig
from wuerstchen.data import Batch, Pairs
from wuerstchen.noise import mixed

RunName = Literal["a", "b-pretraining", "b", "c-pretraining", "c"]
"""What has a run folder of its own: the stages, and what B and C do first if so configured."""

Networks = Mapping[str, nn.Module]
"""The networks by name, as the loop wrapped them for its devices."""

PEEK = 8
"""Images side by side in a grid."""

AT_ONCE = 16
"""Images that a look passes through Stage A together: at full size each takes gigabytes."""


class Loss(NamedTuple):
    """One backward pass."""

    network: str
    """Whose optimizer steps on it."""
    value: Tensor
    scalars: dict[str, Tensor]
    """What the log shall show; `error`, where present, is watched for divergence."""


class ParameterGroup(NamedTuple):
    parameters: list[nn.Parameter]
    rate: float
    """Multiplies the learning rate."""


class Draws:
    """Random numbers for a batch, from one stream per image.

    A stream follows from the seed and the image's position in the run alone: so a resumed run,
    other batches or more processes change nothing of what an image is trained with.
    """

    def __init__(self, seed: int, positions: Sequence[int], device: torch.device) -> None:
        self.device = device
        self.keys = [mixed(seed, at) for at in positions]
        self._streams = [torch.Generator().manual_seed(key) for key in self.keys]

    def uniform(self) -> Tensor:
        """(B,) numbers in [0, 1)."""
        return torch.cat([torch.rand(1, generator=s) for s in self._streams]).to(self.device)

    def chosen(self, share: float) -> Tensor:
        """(B, 1, 1, 1), true for that share of the images on average."""
        return (self.uniform() < share).view(-1, 1, 1, 1)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape (B, …) of `like`."""
        shape = like.shape[1:]
        noise = [torch.randn(shape, generator=s) for s in self._streams]
        return torch.stack(noise).to(self.device)


class Stage(ABC):
    """One of the trainings, the two pretrainings included. Children are final."""

    name: RunName
    trained: str
    """Name of the network whose averaged weights are exported."""
    training: TrainingConfig
    step: int = 0
    """Optimizer steps so far, the one at hand included; the loop keeps it."""
    images: int = 0
    """Images that were seen before the step at hand; the loop keeps it."""
    needs_images: bool = True
    """Whether batches have to hold pixels."""

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Every network that is trained, each with an optimizer of its own."""

    def parameter_groups(self, name: str) -> list[ParameterGroup]:
        """Parameters of network `name` that are trained, by learning rate."""
        network = self.networks()[name]
        return [ParameterGroup([p for p in network.parameters() if p.requires_grad], 1.0)]

    @abstractmethod
    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The losses of one batch; the loop goes backward on each before it asks for the next."""

    def memory(self) -> dict[str, Tensor]:
        """What it remembers beside its networks: saved with them, and loaded into these tensors."""
        return {}

    def before_step(self) -> None:  # noqa: B027  # most have nothing to forget
        """A step begins, perhaps again in smaller parts: forget what a broken one has noted."""

    def after_step(self) -> dict[str, float]:
        """What has to be mended after an optimizer step; returns scalars for the log."""
        return {}

    @abstractmethod
    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        """Losses on `count` images that are not trained on, with fixed noise and times."""

    @abstractmethod
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """(3, H, W) image in [0, 1] of what the stage can do."""

    @abstractmethod
    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the stage's part of the model folder."""


def section_of(name: RunName) -> str:
    """Where the config has the recipe of a step."""
    stage, _, pretraining = name.partition("-")
    return f"stage_{stage}.{pretraining or 'training'}"


class Cache:
    """Keeps what `encode` makes of images, as far as `memory` GiB reach.

    With any memory at all it encodes image by image: in a batch the last bits would depend on
    the company, and a resumed run, whose cache starts empty, would not equal one that never
    stopped.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], memory: float) -> None:
        self._encode = encode
        self._room = int(memory * 2**30)
        self._one_by_one = self._room > 0
        self._kept: dict[int, Tensor] = {}

    def __call__(self, batch: Batch, device: torch.device) -> Tensor:
        missing = [row for row, index in enumerate(batch.indices) if index not in self._kept]
        fresh: dict[int, Tensor] = {}
        if missing:
            images = batch.images[missing].to(device)
            parts = images.split(1 if self._one_by_one else len(images))
            encoded = torch.cat([self._encode(part) for part in parts]).cpu()
            fresh = {batch.indices[row]: value for row, value in zip(missing, encoded, strict=True)}
            for index, value in fresh.items():
                self._room -= value.nbytes
                if self._room >= 0:
                    self._kept[index] = value.clone()
        rows = [fresh[i] if i in fresh else self._kept[i] for i in batch.indices]
        return torch.stack(rows).to(device)


def held_out_batch(test: Pairs, count: int) -> Batch:
    """The first `count` images of the test split's main shape, each with its first caption."""
    indices = test.most_common_shape(count)
    images = torch.stack([test.image(i) for i in indices]).float() / 255  # (B, 3, S, S)
    return Batch(
        images, [test[i].captions[0] for i in indices], [test[i].key for i in indices], indices
    )


def even_times(count: int, device: torch.device) -> Tensor:
    """(count,) times that lie evenly in (0, 1): the fixed times of held-out losses."""
    return (torch.arange(count, device=device) + 0.5) / count
