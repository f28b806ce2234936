"""The few things that processes tell each other besides gradients. One process: no-ops."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
import torch.nn.functional as F
from torch import Tensor, nn


def several() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def largest_of_all(values: Tensor) -> Tensor:
    """The elementwise largest over all processes, in place."""
    if several():
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def from_first(values: Tensor) -> Tensor:
    """What the first process has."""
    if several():
        values = values.contiguous()
        dist.broadcast(values, src=0)
    return values


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the pictures of all processes; torch's own SyncBatchNorm needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and several()):
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        count = dist.get_world_size() * x.numel() / x.shape[1]
        dims = (0, 2, 3)
        wide = x.float()
        mean = differentiable.all_reduce(wide.sum(dims)) / count  # (C,)
        centred = wide - mean.view(1, -1, 1, 1)
        variance = differentiable.all_reduce(centred.square().sum(dims)) / count  # (C,)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


def share_batch_norms(network: nn.Module) -> None:
    """Give every BatchNorm2d of `network` the statistics of all processes."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
