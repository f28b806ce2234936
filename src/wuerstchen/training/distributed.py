"""Communication between processes other than of gradients. No-ops in a single process."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wuerstchen.errors import TrainingError


def rejoin_after_restart() -> None:
    """Create the process group after a restart by torchrun, which `accelerate launch` uses.

    Restarts share one store, which still has the addresses of processes that are gone, and would
    wait for them forever. So every start gets a prefix of its own.
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
    """Exit this process at the end of a distributed run, bypassing interpreter shutdown.

    gloo's threads release tensors with a delay, which aborts the process if the interpreter is
    already shutting down, so that the launcher reports a finished run as failed. The threads
    outlive their group because torch's caches keep the device mesh of a sharded network
    (torch 2.13).
    """
    if not is_distributed():
        return
    dist.destroy_process_group()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def local_device() -> torch.device:
    """The GPU of this process, round-robin if there are fewer GPUs than processes; or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def is_distributed() -> bool:
    """Whether there is more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_main_process() -> bool:
    """Whether this process has rank 0, according to its launcher."""
    return os.environ.get("RANK", "0") == "0"


def rank_and_world() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def all_reduce_max(values: Tensor) -> Tensor:
    """The elementwise maximum over all processes, in place."""
    if is_distributed():
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def comm_device() -> torch.device:
    """The device of tensors for communication."""
    return torch.device("cuda" if is_distributed() and dist.get_backend() == "nccl" else "cpu")


def any_rank(value: bool) -> bool:
    """Whether `value` is true in any process. A collective call."""
    if not is_distributed():
        return value
    return bool(all_reduce_max(torch.tensor([float(value)], device=comm_device())))


def broadcast(value: float) -> float:
    """The value of rank 0. A collective call."""
    if not is_distributed():
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=comm_device())
    dist.broadcast(shared, src=0)
    return float(shared)


@contextmanager
def explain_lost_peers(who: str) -> Iterator[None]:
    """Turn communication errors after the loss of another process into a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if not is_distributed() or not _LOST_PEER.search(str(error)):
            raise
        raise TrainingError(
            f"{who}: lost another process of this training ({str(error).splitlines()[0]}); a "
            "restart by the launcher, or the same command, resumes from the newest checkpoint."
        ) from None


_LOST_PEER = re.compile("connection (closed|reset)|broken pipe|timed out|timeout|gloo|nccl", re.I)
"""Messages of gloo and NCCL when a peer does not respond."""


def barrier() -> None:
    if is_distributed():
        dist.barrier()


def all_gather(values: Tensor) -> Tensor:
    """The (N, …) values of all processes, concatenated; N must be the same in all."""
    if not is_distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def gather(text: str) -> list[str]:
    """The texts of all processes, by rank. A collective call."""
    if not is_distributed():
        return [text]
    texts = [""] * dist.get_world_size()
    dist.all_gather_object(texts, text)
    return texts


def all_reduce_mean(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The mean of each value over all processes, which need the same names in the same order."""
    if not is_distributed():
        return dict(values)
    total = torch.tensor(list(values.values()), device=device)
    dist.all_reduce(total)
    return dict(zip(values, (total / dist.get_world_size()).tolist(), strict=True))


class _Sum(torch.autograd.Function):
    """The sum over all processes. All their losses depend on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the images of all processes; torch's SyncBatchNorm needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and is_distributed()):
            local: Tensor = super().forward(x)
            return local
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        sum_of_all: Callable[[Tensor], Tensor] = _Sum.apply
        count, dims, x32 = dist.get_world_size() * x.numel() / x.shape[1], (0, 2, 3), x.float()
        mean = sum_of_all(x32.sum(dims)) / count  # (C,)
        centred = x32 - mean.view(1, -1, 1, 1)
        variance = sum_of_all(centred.square().sum(dims)) / count  # (C,)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        # F.batch_norm would not propagate gradients to the statistics passed to it.
        y: Tensor = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.affine:
            y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)


def sync_batch_norms(network: nn.Module) -> None:
    """Make every BatchNorm2d of `network` use the statistics of all processes."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
