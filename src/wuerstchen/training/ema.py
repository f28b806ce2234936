"""Exponential averages of what a training changes: the weights that are looked at and exported."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

Average = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]
"""(kept, new, updates so far): moves the kept weights towards the new ones."""


class EMA:
    """One average for each decay, of the trained weights of `network` and of its statistics.

    Frozen weights are not kept twice. Of a sharded network every process keeps its own shards.
    """

    def __init__(self, network: nn.Module, decays: Sequence[float]) -> None:
        self._followed = _Followed(network)
        self._kept = [
            AveragedModel(
                self._followed.bare(),
                multi_avg_fn=_averager(decay),
                use_buffers=True,  # the statistics of BatchNorms belong to the averaged weights
            )
            for decay in decays
        ]

    def __len__(self) -> int:
        return len(self._kept)

    def update(self) -> None:
        """Let every average follow the network."""
        self._followed.refresh()
        for average in self._kept:
            average.update_parameters(self._followed)

    def state(self) -> dict[str, Tensor]:
        """What has to be saved, by name; the tensors themselves, to be loaded into."""
        return {
            f"{index}.{name}": tensor
            for index, average in enumerate(self._kept)
            for name, tensor in average.state_dict().items()
        }

    def weights(self, index: int) -> Iterator[tuple[str, Tensor]]:
        """Names in the network, and what average `index` has for them."""
        for name, tensor in self._of(index).items():
            yield name.replace(_DOT, "."), tensor

    @contextmanager
    def in_place(self, index: int) -> Iterator[None]:
        """Average `index` in place of the trained weights for as long as the block lasts."""
        self._followed.refresh()
        pairs = list(zip(self._followed.tensors(), self._of(index).values(), strict=True))
        _swap(pairs)
        try:
            yield
        finally:
            _swap(pairs)

    def _of(self, index: int) -> dict[str, Tensor]:
        kept = self._kept[index].module
        return dict(kept.named_parameters()) | dict(kept.named_buffers())


_DOT = "/"
"""Stands for the dot, which the names of a module's own parameters may not have."""


class _Followed(nn.Module):
    """The very parameters and buffers of a network that training changes, and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]  # in a list, lest its weights become this module's too
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", _DOT), parameter)
        saved = network.state_dict().keys()
        for name, buffer in network.named_buffers():
            if name in saved:
                self.register_buffer(name.replace(".", _DOT), buffer)

    def bare(self) -> "_Followed":
        """The same without the network, to be copied."""
        bare = copy.copy(self)
        bare._network = []
        return bare

    def refresh(self) -> None:
        """Take the buffers of now: DDP gives a network new ones."""
        for name in self._buffers:
            self._buffers[name] = self._network[0].get_buffer(name.replace(_DOT, "."))

    def tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]


@torch.no_grad()
def _swap(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Exchange memory: nothing is copied, and the second exchange is exact."""
    for one, other in pairs:
        one.data, other.data = other.data, one.data


def _averager(decay: float) -> Average:
    """Exponential average whose memory grows with the run, up to `decay`.

    Without that growth a short run would still remember its random start.
    """

    @torch.no_grad()
    def average(kept: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        mine, theirs = _own(kept), _own(new)
        if not mine[0].is_floating_point():  # counters
            torch._foreach_copy_(mine, theirs)
            return
        forget = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(mine, theirs, forget)

    return average


def _own(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's shards, which share their memory with the tensors."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
