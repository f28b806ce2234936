"""What an outline of a training is: networks without content, and their losses."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wuerstchen.config import TrainingConfig
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.networks import META
from wuerstchen.planning.trace import Trace
from wuerstchen.training.stage import RunName


class Work:
    """How an outline runs its networks: in the setting's numbers, counted by a trace."""

    def __init__(self, setting: Setting, trace: Trace) -> None:
        self.setting, self.trace = setting, trace

    @contextmanager
    def frozen(self, *, autocast: bool = False) -> Iterator[None]:
        """For what only encodes. The trainers run it in fp32, except within their networks."""
        with self.trace.phase("frozen"), torch.no_grad():
            if autocast:
                with self.setting.forward():
                    yield
            else:
                yield

    @contextmanager
    def learning(self) -> Iterator[None]:
        """For the forward pass of what learns."""
        with self.trace.phase("forward"), self.setting.forward():
            yield


class Outline(ABC):
    """One training. Children are final."""

    name: RunName
    averaged: str
    """The network whose average is kept."""
    late: float = 1.0
    """Share of the images that meet everything there is; the others come before the discriminator."""

    def __init__(self, recipe: TrainingConfig) -> None:
        self.recipe = recipe

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """What learns, each with an optimizer; may hold frozen parts."""

    @abstractmethod
    def helpers(self) -> dict[str, nn.Module]:
        """Frozen networks beside them that end up on the device, those of the looks included."""

    @abstractmethod
    def losses(self, work: Work, micro: int, *, late: bool = True) -> Iterator[Tensor]:
        """The losses of `micro` images; the caller goes backward on each before the next.

        late  with everything there is, or as before the discriminator joins
        """

    def once(self, work: Work) -> Iterator[int]:
        """SamplingPlan through what is done before the first step; after each part, how often that is."""
        del work
        yield from ()


def empty(*shape: int) -> Tensor:
    """An fp32 tensor without content."""
    return torch.empty(shape, device=META)
