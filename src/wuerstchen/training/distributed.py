"""The few things that processes tell each other besides gradients. One process: no-ops."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wuerstchen.errors import TrainingError


def rejoin_after_restart() -> None:
    """Meet the other processes again after a restart by torchrun, which `accelerate launch` uses.

    It hands the same store to every start, in which processes that are gone have left their
    addresses: who looks there waits for them for ever. So every start gets a shelf of its own.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if start == "0" or not shared or dist.is_initialized() or os.environ["WORLD_SIZE"] == "1":
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared_store = dist.TCPStore(address, port, is_master=False)  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"start {start}", shared_store)  # type: ignore[attr-defined]
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def shut_down() -> None:
    """End this process where it is one of several, its work being done.

    Not by way of the interpreter's end: gloo's threads let go of tensors a little after they are
    done with them, and one that does so while the interpreter goes down aborts the process, so that
    the launcher calls a finished run failed. The threads outlive their group, since torch's caches
    keep the device mesh of a sharded network (torch 2.13).
    """
    if not is_distributed():
        return
    dist.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def local_device() -> torch.device:
    """The GPU of this process, in turn where the machine has fewer than processes; or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def is_distributed() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_main_process() -> bool:
    """Whether this process is the one that talks, by what its launcher told it."""
    return os.environ.get("RANK", "0") == "0"


def all_reduce_max(values: Tensor) -> Tensor:
    """The elementwise largest over all processes, in place."""
    if is_distributed():
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def comm_device() -> torch.device:
    """Where tensors have to be that processes exchange."""
    return torch.device("cuda" if is_distributed() and dist.get_backend() == "nccl" else "cpu")


def any_rank(here: bool) -> bool:
    """Whether it is so in any process; all of them have to ask."""
    if not is_distributed():
        return here
    return bool(all_reduce_max(torch.tensor([float(here)], device=comm_device())))


def broadcast(value: float) -> float:
    """What the first process has; all of them have to ask."""
    if not is_distributed():
        return value
    told = torch.tensor([value], dtype=torch.float64, device=comm_device())
    dist.broadcast(told, src=0)
    return float(told)


@contextmanager
def explain_lost_peers(who: str) -> Iterator[None]:
    """A process that waits for one that is gone says so, instead of how the wire broke."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).lower()
        if not is_distributed() or not any(sign in words for sign in _LOST):
            raise
        raise TrainingError(
            f"{who}: another process of this training is gone ({str(error).splitlines()[0]}); the "
            "launcher's restart, or the same command, goes on from the newest checkpoint."
        ) from None


_LOST = (
    "connection closed",
    "connection reset",
    "broken pipe",
    "timed out",
    "timeout",
    "gloo",
    "nccl",
)
"""What gloo and NCCL say when a peer does not answer any more."""


def barrier() -> None:
    """Wait until every process is here."""
    if is_distributed():
        dist.barrier()


def all_gather(values: Tensor) -> Tensor:
    """The equally long (N, …) values of all processes, one after the other."""
    if not is_distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def all_reduce_mean(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each number's mean over all processes, which must have the same names in the same order."""
    if not is_distributed():
        return dict(values)
    total = torch.tensor(list(values.values()), device=device)
    dist.all_reduce(total)
    return dict(zip(values, (total / dist.get_world_size()).tolist(), strict=True))


class _Sum(torch.autograd.Function):
    """The sum over all processes. As each process's loss depends on it, gradients add up too."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _summed(x: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return summed


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the images of all processes; torch's own SyncBatchNorm needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and is_distributed()):
            plain: Tensor = super().forward(x)
            return plain
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        count = dist.get_world_size() * x.numel() / x.shape[1]
        dims = (0, 2, 3)
        wide = x.float()
        mean = _summed(wide.sum(dims)) / count  # (C,)
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _summed(centred.square().sum(dims)) / count  # (C,)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        # Not by F.batch_norm, which gives no gradients to the statistics that it is handed.
        y: Tensor = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.affine:
            y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)


def sync_batch_norms(network: nn.Module) -> None:
    """Give every BatchNorm2d of `network` the statistics of all processes."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
