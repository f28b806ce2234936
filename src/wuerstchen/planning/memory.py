"""Bytes on a device at the peak of a training step, and the largest micro-batch that fits."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple, final

from torch import Tensor, nn

from wuerstchen.planning.dry_run import DryRun
from wuerstchen.planning.kernels import Setting
from wuerstchen.training.muon import linear_weights
from wuerstchen.training.sharding import FSDP_BLOCKS
from wuerstchen.training.stage import trained_parameters

GATHERED = 2
"""Units of a sharded network that are whole at once: the current one and the next."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of one device. Their sum is the peak."""

    weights: int
    """Of what learns, fp32, with its buffers; of a sharded network also the gathered blocks."""
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    ema: int
    """EMA weights."""
    ddp_buckets: int
    """DDP's second copy of the gradients, in its buckets."""
    frozen: int
    """Networks that only encode, and those for validation."""
    activations: int
    """The rest: what is kept for the backward pass. The fused optimizer needs nothing more."""

    @property
    def total(self) -> int:
        return sum(astuple(self))


class Layout(NamedTuple):
    """How a training is distributed."""

    devices: int
    sharded: bool

    @property
    def shards(self) -> int:
        """Devices that hold one copy together."""
        return self.devices if self.sharded else 1


class Parameters(NamedTuple):
    """Numbers of parameters."""

    trained: int
    frozen: int


@final
@dataclass(frozen=True, slots=True)
class MicroBatches:
    """How a device splits its part of a batch."""

    micro: int
    accumulation: int
    memory: Memory


def count_parameters(run: DryRun) -> Parameters:
    """Of all networks, those for validation included."""
    own = [p for network in run.stage.networks().values() for p in network.parameters()]
    trained = sum(p.numel() for p in own if p.requires_grad)
    others = run.stage.frozen_networks().values()
    frozen = sum(p.numel() for network in others for p in network.parameters())
    return Parameters(trained, sum(p.numel() for p in own) - trained + frozen)


def step_memory(
    run: DryRun, setting: Setting, layout: Layout, micro: int, accumulation: int
) -> Memory:
    """The peak of a step of `accumulation` micro-batches of `micro` images on one device."""
    networks = run.stage.networks()
    trained = [p for network in networks.values() for p in trained_parameters(network)]
    frozen = [p for net in networks.values() for p in net.parameters() if not p.requires_grad]
    buffers = [buffer for network in networks.values() for buffer in network.buffers()]
    others = run.stage.frozen_networks().values()
    learned = _bytes(trained) // layout.shards
    exported = networks[run.stage.trained]
    ema = _bytes(trained_parameters(exported)) // layout.shards + _bytes(exported.buffers())
    # Gradients that are kept from one micro-batch to the next exist at the peak of each.
    kept = accumulation > 1 or layout.sharded
    peak = run.trace(setting, micro, free_gradients=kept).peak
    return Memory(
        weights=learned + _bytes(buffers) + _gathered(list(networks.values()), layout),
        gradients=learned,
        optimizer=2 * learned - _bytes(_by_muon(run)) // layout.shards,  # which has one moment
        ema=len(run.stage.training.ema_decays) * ema,
        ddp_buckets=_bytes(trained) if layout.devices > 1 and not layout.sharded else 0,
        frozen=_bytes(frozen) + sum(_bytes(m.parameters()) + _bytes(m.buffers()) for m in others),
        activations=peak if kept else peak - _bytes(trained),
    )


def largest_micro(
    run: DryRun, setting: Setting, layout: Layout, batch: int, available: int
) -> MicroBatches:
    """The largest micro-batch that divides `batch` and needs at most `available` bytes.

    It is no larger than the config's `gradient_accumulation` allows, and a single image if
    nothing fits.
    """

    def at(micro: int) -> MicroBatches:
        split = batch // micro
        return MicroBatches(micro, split, step_memory(run, setting, layout, micro, split))

    most = batch // run.stage.training.gradient_accumulation
    sizes = [size for size in range(1, most + 1) if batch % size == 0]
    found = at(sizes[-1])
    if found.memory.total <= available:  # as with small networks; no other needs to be tried
        return found
    found = at(1)
    low, high = 0, len(sizes) - 1  # sizes[low] is found, sizes[high] does not fit
    while high - low > 1:
        middle = (low + high) // 2
        tried = at(sizes[middle])
        if tried.memory.total <= available:
            low, found = middle, tried
        else:
            high = middle
    return found


def _gathered(networks: Sequence[nn.Module], layout: Layout) -> int:
    """Of sharded networks: what is outside of blocks, and the largest blocks, whole.

    Frozen weights, which are gathered with what is outside, are counted whole as frozen.
    """
    if layout.shards == 1:
        return 0
    most = 0
    for network in networks:
        blocks = [m for m in network.modules() if isinstance(m, tuple(FSDP_BLOCKS))]
        sizes = sorted((_bytes(block.parameters()) for block in blocks), reverse=True)
        whole = _bytes(trained_parameters(network))
        most = max(most, whole - sum(sizes) + sum(sizes[:GATHERED]))
    return most


def _by_muon(run: DryRun) -> list[nn.Parameter]:
    """Weights that Muon trains."""
    if run.stage.training.optimizer != "muon":
        return []
    return [p for network in run.stage.networks().values() for p in linear_weights(network)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
