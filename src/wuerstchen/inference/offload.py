"""Where weights are kept: in memory, in their files, or in CPU memory next to an accelerator."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.weights import ComponentFiles


@final
class Resident:
    """Weights that stay where they are."""

    device: torch.device | None = None
    """Where networks compute: where their weights are."""

    @contextmanager
    def loaded(self, network: nn.Module) -> Iterator[None]:
        del network
        yield


@final
class CpuOffload:
    """Weights in CPU memory, moved to `device` for each use."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def loaded(self, network: nn.Module) -> Iterator[None]:
        network.to(self.device)
        try:
            yield
        finally:
            network.to("cpu")


@final
class DiskOffload:
    """Weights that are memory-mapped from their files, which must not change, for each use.

    Between uses the parameters are on the meta device, where they take no memory.
    """

    def __init__(
        self,
        components: Mapping[nn.Module, tuple[ComponentFiles, torch.dtype]],
        device: torch.device,
    ) -> None:
        """components: empty networks of `weights`, each with its files and its dtype."""
        self.device = device
        self._components = dict(components)
        # Owners of the parameters, by the names in the files: layers may be wrapped later on.
        self._slots = {
            network: [
                (f"{name}.{key}" if name else key, module, key)
                for name, module in network.named_modules()
                for key, tensor in (*module._parameters.items(), *module._buffers.items())
                if tensor is not None and tensor.is_meta
            ]
            for network in components
        }

    @contextmanager
    def loaded(self, network: nn.Module) -> Iterator[None]:
        files, dtype = self._components[network]
        found = weights.tensors(files, dtype)
        replaced: list[tuple[nn.Module, str, Tensor]] = []
        try:
            for name, module, key in self._slots[network]:
                replaced.append((module, key, getattr(module, key)))
                _put(module, key, found.pop(name).to(self.device))
            yield
        finally:
            for module, key, meta in replaced:
                _put(module, key, meta)


Residence = Resident | CpuOffload | DiskOffload
"""Where weights are kept; within `loaded(network)` they are where the network computes."""


def _put(module: nn.Module, key: str, tensor: Tensor) -> None:
    if key in module._parameters:
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        module._parameters[key] = tensor
    else:
        module._buffers[key] = tensor
