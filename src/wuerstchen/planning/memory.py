"""Bytes on a device at the peak of a training step, by what they are for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.outline import Outline, Work
from wuerstchen.planning.trace import Flops, Kind, Trace
from wuerstchen.training.sharding import FSDP_BLOCKS

GATHERED = 2
"""Units of a sharded network that are whole at once: the one at work and the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of one device. Their sum is the peak."""

    weights: int
    """Of what learns, fp32, with its buffers; of a sharded network also the blocks at work."""
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    averages: int
    exchange: int
    """DDP's second copy of the gradients, in the pieces that it sends."""
    frozen: int
    """Networks that only encode, and those that looks draw with."""
    activations: int
    """The rest: what is kept for the backward pass. The fused optimizer needs nothing more."""

    @property
    def total(self) -> int:
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.averages
            + self.exchange
            + self.frozen
            + self.activations
        )


class Spread(NamedTuple):
    """How a step is spread over devices."""

    devices: int
    sharded: bool

    @property
    def shards(self) -> int:
        """Devices that share one copy."""
        return self.devices if self.sharded else 1


class Parameters(NamedTuple):
    """Numbers of a step's networks."""

    trained: int
    frozen: int


def count_parameters(outline: Outline) -> Parameters:
    """What learns and what does not, the networks of the looks left out."""
    own = [p for network in outline.networks().values() for p in network.parameters()]
    trained = sum(p.numel() for p in own if p.requires_grad)
    still = sum(p.numel() for p in own if not p.requires_grad)
    helpers = sum(p.numel() for net in outline.helpers().values() for p in net.parameters())
    return Parameters(trained, still + helpers)


def step_memory(
    outline: Outline, setting: Setting, spread: Spread, micro: int, accumulate: int
) -> Memory:
    """The peak of a step of `accumulate` micro-batches of `micro` images on one device."""
    networks = list(outline.networks().values())
    trained = [p for network in networks for p in network.parameters() if p.requires_grad]
    frozen = [p for network in networks for p in network.parameters() if not p.requires_grad]
    buffers = [buffer for network in networks for buffer in network.buffers()]
    learned = _bytes(trained) // spread.shards
    averaged = outline.networks()[outline.averaged]
    followed = [p for p in averaged.parameters() if p.requires_grad]
    lengths = len(outline.recipe.ema_decays)
    # Where gradients are kept from one micro-batch to the next, all are there at the peak of each.
    kept = accumulate > 1 or spread.sharded
    moving = traced(outline, setting, micro, free_gradients=kept).peak
    activations = moving if kept else moving - _bytes(trained)
    return Memory(
        weights=learned + _bytes(buffers) + _gathered(networks, spread),
        gradients=learned,
        optimizer=2 * learned,
        averages=lengths * (_bytes(followed) // spread.shards + _bytes(averaged.buffers())),
        exchange=_bytes(trained) if spread.devices > 1 and not spread.sharded else 0,
        frozen=_bytes(frozen) + sum(_held(helper) for helper in outline.helpers().values()),
        activations=activations,
    )


def traced(
    outline: Outline,
    setting: Setting,
    micro: int,
    *,
    free_gradients: bool = False,
    late: bool = True,
) -> Trace:
    """One micro-batch, forward and backward.

    free_gradients  let each go as soon as it is there, so that the peak holds none but that one
    """
    networks = list(outline.networks().values())
    for network in networks:
        network.train()
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(_forget) for p in parameters if free_gradients]
    trace = Trace(_known(outline))
    work = Work(setting, trace)
    try:
        with setting.kernels(), trace:
            for loss in outline.losses(work, micro, late=late):
                with trace.phase("backward"), setting.backward(networks):
                    torch.autograd.backward(loss)
                del loss
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in parameters:
            parameter.grad = None
    return trace


def count_flops(outline: Outline, setting: Setting) -> Flops:
    """Operations of a step, of one image on average over the run."""
    shares = {True: outline.late, False: 1 - outline.late}
    found: Flops = {"frozen": {}, "forward": {}, "backward": {}}
    for late, share in shares.items():
        if share == 0:
            continue
        for phase, counts in traced(outline, setting, 1, late=late).flops.items():
            for kind, count in counts.items():
                found[phase][kind] = found[phase].get(kind, 0) + round(share * count)
    return found


def count_once(outline: Outline, setting: Setting) -> dict[Kind, int]:
    """Operations before the first step, on one device."""
    trace = Trace(_known(outline))
    found: dict[Kind, int] = {}
    with setting.kernels(), trace:
        for times in outline.once(Work(setting, trace)):
            for kind, count in trace.flops["frozen"].items():
                found[kind] = found.get(kind, 0) + times * count
            trace.flops["frozen"] = {}
    return found


def _known(outline: Outline) -> list[Tensor]:
    """All that is there before a step."""
    modules = [*outline.networks().values(), *outline.helpers().values()]
    return [tensor for m in modules for tensor in (*m.parameters(), *m.buffers())]


def _gathered(networks: Sequence[nn.Module], spread: Spread) -> int:
    """Of sharded networks: what lies outside of blocks, and the largest blocks, whole.

    Frozen parts, gathered with what lies outside, are counted whole as frozen.
    """
    if spread.shards == 1:
        return 0
    most = 0
    for network in networks:
        blocks = [m for m in network.modules() if isinstance(m, tuple(FSDP_BLOCKS))]
        sizes = sorted((_bytes(block.parameters()) for block in blocks), reverse=True)
        whole = _bytes(p for p in network.parameters() if p.requires_grad)
        most = max(most, whole - sum(sizes) + sum(sizes[:GATHERED]))
    return most


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _held(network: nn.Module) -> int:
    return _bytes(network.parameters()) + _bytes(network.buffers())


def _forget(parameter: Tensor) -> None:
    parameter.grad = None
