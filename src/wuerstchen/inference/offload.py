"""Where weights are while their network works, and while it waits.

Always in memory; or read from their files for the time of each use; or in the CPU's memory and on
the accelerator for the time of each use. The network itself stays the same object.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.weights import ComponentFiles


class Always:
    """Weights that stay where they are."""

    @contextmanager
    def awake(self, network: nn.Module) -> Iterator[None]:
        del network
        yield


class Offloaded:
    """Weights that are on `device` for the time of each use, and else in the CPU's memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def awake(self, network: nn.Module) -> Iterator[None]:
        network.to(self.device)
        try:
            yield
        finally:
            network.to("cpu")


class Mapped:
    """Weights that are mapped from their files for the time of each use, and else nowhere.

    The files must stay where they are and as they are. Outside of a use the parameters are on the
    meta device, where they have a shape and a type and take no memory.
    """

    def __init__(
        self, parts: Mapping[nn.Module, tuple[ComponentFiles, torch.dtype]], device: torch.device
    ) -> None:
        """parts: outlines of `weights`, each with its files and the type that it works in."""
        self.device = device
        self._parts = dict(parts)
        # Owners of the parameters, by the names in the files: layers may be wrapped later on.
        self._slots = {
            network: [
                (f"{name}.{key}" if name else key, module, key)
                for name, module in network.named_modules()
                for key, tensor in (*module._parameters.items(), *module._buffers.items())
                if tensor is not None and tensor.is_meta
            ]
            for network in parts
        }

    @contextmanager
    def awake(self, network: nn.Module) -> Iterator[None]:
        part, dtype = self._parts[network]
        found = weights.tensors(part, dtype)
        asleep: list[tuple[nn.Module, str, Tensor]] = []
        try:
            for name, module, key in self._slots[network]:
                asleep.append((module, key, getattr(module, key)))
                _put(module, key, found.pop(name).to(self.device))
            yield
        finally:
            for module, key, meta in asleep:
                _put(module, key, meta)


def _put(module: nn.Module, key: str, tensor: Tensor) -> None:
    if key in module._parameters:
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        module._parameters[key] = tensor
    else:
        module._buffers[key] = tensor
