"""Runs the real trainers on the meta device: their bytes and operations, without content."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import final

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from wuerstchen.config import Config
from wuerstchen.data import Batch
from wuerstchen.models.text import TextEncoder
from wuerstchen.noise import RandomStreams
from wuerstchen.planning.blank import META, BlankNetworks
from wuerstchen.planning.kernels import Setting, around_forward
from wuerstchen.planning.trace import Flops, Kind, Trace
from wuerstchen.training.build import build_stage
from wuerstchen.training.stage import RunName, TrainState, trained_parameters


@final
class DryRun:
    """One training."""

    def __init__(self, name: RunName, config: Config) -> None:
        """config: with the sizes of its bases"""
        networks = BlankNetworks(config)
        with META:
            self.stage = build_stage(name, networks)
        self.class_flops: dict[Kind, int] = networks.class_flops
        """Operations on one device before the first step."""
        self._side = config.data.size

    def trace(
        self,
        setting: Setting,
        micro: int,
        *,
        state: TrainState | None = None,
        free_gradients: bool = False,
    ) -> Trace:
        """One micro-batch, forward and backward.

        state           by default the one that needs the most memory
        free_gradients  release each as soon as it exists, so that the peak holds only one
        """
        if state is None:
            _, state = self.stage.workloads()[-1]
        networks = self.stage.networks()
        for network in networks.values():
            network.train()
        parameters = [p for network in networks.values() for p in trained_parameters(network)]
        trace = Trace(self._tensors())
        learning = {name: _Learning(net, setting, trace) for name, net in networks.items()}
        self.stage.before_step()
        with ExitStack() as held:
            held.enter_context(_without_gradients(parameters, free=free_gradients))
            held.enter_context(setting.kernels())
            held.enter_context(trace)
            streams, batch = _BlankStreams(micro), self._batch(micro)
            for loss in self.stage.losses(learning, batch, streams, state):
                with trace.phase("backward"), setting.backward(networks.values()):
                    torch.autograd.backward(loss.value)
                del loss
        return trace

    def flops(self, setting: Setting) -> Flops:
        """Operations of a step for one image, on average over the training."""
        found: Flops = {"frozen": {}, "forward": {}, "backward": {}}
        for fraction, state in self.stage.workloads():
            for phase, counts in self.trace(setting, 1, state=state).flops.items():
                for kind, count in counts.items():
                    found[phase][kind] = found[phase].get(kind, 0) + round(fraction * count)
        return found

    def _batch(self, micro: int) -> Batch:
        shape = (micro, 3, self._side, self._side) if self.stage.needs_images else (micro, 0)
        # On the CPU, as the loader leaves them: the copy on the device is counted while it lives.
        images = torch.empty(()).expand(shape)
        keys = [str(index) for index in range(micro)]
        return Batch(images, [""] * micro, keys, list(range(micro)))

    def _tensors(self) -> list[Tensor]:
        """Everything on the device before a step."""
        modules = [*self.stage.networks().values(), *self.stage.frozen_networks().values()]
        return [tensor for m in modules for tensor in (*m.parameters(), *m.buffers())]


@final
class _Learning(nn.Module):
    """A network in training: computed in the dtypes of the setting, counted as forward pass."""

    def __init__(self, network: nn.Module, setting: Setting, trace: Trace) -> None:
        super().__init__()
        self._network, self._setting, self._trace = network, setting, trace

    def forward(self, *inputs: object) -> object:
        with ExitStack() as held:
            held.enter_context(self._trace.phase("forward"))
            held.enter_context(self._setting.forward())
            for module in self._network.modules():
                if isinstance(module, TextEncoder) and not trained_parameters(module):
                    frozen = around_forward(module, lambda: self._trace.phase("frozen"))
                    held.enter_context(frozen)
            result: object = self._network(*inputs)
        return convert_to_fp32(result) if self._setting.bf16 else result


@final
class _BlankStreams(RandomStreams):
    """Noise without content, and numbers that choose about half of the images."""

    def __init__(self, count: int) -> None:
        super().__init__([])
        self._count = count

    def normal(
        self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return torch.empty(self._count, *shape, device=device, dtype=dtype)

    def uniform(self) -> Tensor:
        return torch.full((self._count,), 0.5)


@contextmanager
def _without_gradients(parameters: list[nn.Parameter], *, free: bool) -> Iterator[None]:
    """Leave no gradients behind; free: none at any time but the newest."""
    hooks = [p.register_post_accumulate_grad_hook(_forget) for p in parameters if free]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in parameters:
            parameter.grad = None


def _forget(parameter: Tensor) -> None:
    parameter.grad = None
