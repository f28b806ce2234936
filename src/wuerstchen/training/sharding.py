"""FSDP2: weights, gradients, optimizer and averages of a network spread over all processes.

torch's own `fully_shard` and not Accelerate's wrapper of it, which takes a single network with a
single optimizer: an averaged copy and a discriminator would have no place there (docs/log.md).
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
"""What is gathered for its own turn alone, and its methods that read weights beside `forward`.

These blocks hold nearly all weights; the rest is gathered once a step, with the whole.
"""


def shard(network: nn.Module, device: torch.device) -> None:
    """Spread `network` over all processes, in place; its parameters become DTensors.

    Every process must hold the same weights before.
    """
    # Our blocks return views, and in training nothing changes what a block returned in place.
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
    """Whether the next backward pass of a sharded network exchanges its gradients."""
    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(last)


def full_tensor(tensor: Tensor) -> Tensor:
    """All shards of a tensor together; every process has to ask. Others stay as they are."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor
