"""FSDP2: shard weights, gradients, optimizer state and EMA of a network over all processes.

Uses torch's `fully_shard`, because Accelerate's wrapper supports only one network with one
optimizer: no EMA copy and no discriminator (docs/log.md).
"""

import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from wuerstchen.models.blocks import AttentionBlock, ConvBlock

FSDP_BLOCKS = {ConvBlock: ("fold",), AttentionBlock: ("condition",)}
"""Blocks gathered one at a time, with their other methods that read weights.

They have nearly all weights; the rest is gathered once per step.
"""


def shard(network: nn.Module, device: torch.device) -> None:
    """Shard `network` over all processes in place; its parameters become DTensors.

    All processes must start with the same weights.
    """
    # Our blocks return views, which training never modifies in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in list(network.modules()):
        for kind, methods in FSDP_BLOCKS.items():
            if isinstance(module, kind):
                fully_shard(module, mesh=mesh)
                for method in methods:
                    register_fsdp_forward_method(module, method)
    fully_shard(network, mesh=mesh)


def set_gradient_sync(network: nn.Module, *, last: bool) -> None:
    """Set whether the next backward pass of a sharded network synchronises gradients."""
    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(last)


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, a collective call; other tensors are returned unchanged."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full
