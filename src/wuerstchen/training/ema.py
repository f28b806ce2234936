"""Exponential moving averages (EMA) of the trained weights, for validation and export."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

Update = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]
"""(averages, weights, updates so far): move the averages towards the weights."""


class EMA:
    """One EMA per decay of the trained weights and the buffers of `network`.

    Frozen weights are not copied. For a sharded network every process has its own shards.
    """

    def __init__(self, network: nn.Module, decays: Sequence[float]) -> None:
        self._source = _TrainedTensors(network)
        self._averages = [
            # With the buffers: statistics of BatchNorms are averaged too.
            AveragedModel(self._source.bare(), multi_avg_fn=_update_by(decay), use_buffers=True)
            for decay in decays
        ]

    def __len__(self) -> int:
        return len(self._averages)

    def update(self) -> None:
        self._source.refresh()
        for average in self._averages:
            average.update_parameters(self._source)

    def state(self) -> dict[str, Tensor]:
        """The tensors to save, by name; loading writes into them."""
        return {
            f"{index}.{name}": tensor
            for index, average in enumerate(self._averages)
            for name, tensor in average.state_dict().items()
        }

    def weights(self, index: int) -> Iterator[tuple[str, Tensor]]:
        """Names in the network with the weights of EMA `index`."""
        for name, tensor in self._of(index).items():
            yield name.replace(_DOT, "."), tensor

    @contextmanager
    def swapped_in(self, index: int) -> Iterator[None]:
        """Use EMA `index` in place of the trained weights within the block."""
        self._source.refresh()
        trained = [*self._source.parameters(), *self._source.buffers()]
        pairs = list(zip(trained, self._of(index).values(), strict=True))
        _swap(pairs)
        try:
            yield
        finally:
            _swap(pairs)

    def _of(self, index: int) -> dict[str, Tensor]:
        average = self._averages[index].module
        return dict(average.named_parameters()) | dict(average.named_buffers())


_DOT = "/"
"""Replaces the dot, which names of a module's own parameters must not contain."""


class _TrainedTensors(nn.Module):
    """The trained parameters and the buffers of a network, shared with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that it is not registered as a submodule
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", _DOT), parameter)
        saved = network.state_dict().keys()
        for name, buffer in network.named_buffers():
            if name in saved:
                self.register_buffer(name.replace(".", _DOT), buffer)

    def bare(self) -> "_TrainedTensors":
        """A copy without the network, for a deep copy."""
        bare = copy.copy(self)
        bare._network = []
        return bare

    def refresh(self) -> None:
        """Read the current buffers: DDP replaces those of a network."""
        for name in self._buffers:
            self._buffers[name] = self._network[0].get_buffer(name.replace(_DOT, "."))


@torch.no_grad()
def _swap(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Swap memory: nothing is copied, and swapping back is exact."""
    for one, other in pairs:
        one.data, other.data = other.data, one.data


def _update_by(decay: float) -> Update:
    """The update of an EMA whose decay rises to `decay` during the run.

    Without this warm-up a short run would still contain its random initialisation.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        averages, weights = _local(averages), _local(weights)
        if not averages[0].is_floating_point():  # counters
            torch._foreach_copy_(averages, weights)
            return
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averages, weights, weight)

    return update


def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's shards, which share memory with the tensors."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
