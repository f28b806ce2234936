"""Traces operations on tensors without content: bytes that live, operations that run."""

import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wuerstchen.flops import Operator, operations

Phase = Literal["frozen", "forward", "backward"]
"""Frozen encoders; forward pass of what learns; backward, with what checkpoints recompute."""

Kind = Literal["bf16", "tf32", "fp32"]
"""Dtype of the computation. Convolutions of fp32 run in TF32, which is torch's default."""

Flops = dict[Phase, dict[Kind, int]]

CONVOLUTIONS = frozenset(
    {torch.ops.aten.convolution, torch.ops.aten._convolution, torch.ops.aten.convolution_backward}
)


@final
class Trace(TorchDispatchMode):
    """Counts while it is entered.

    peak   most bytes of new tensors at once; those of `known` are not counted
    flops  as `wuerstchen.flops` counts them
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.flops: Flops = {"frozen": {}, "forward": {}, "backward": {}}
        self._phase: Phase | None = None
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._held: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Count under `phase`; outside of any, what runs without gradients is frozen."""
        before, self._phase = self._phase, phase
        try:
            yield
        finally:
            self._phase = before

    def __torch_dispatch__(
        self,
        func: Operator,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs)
        if count := operations(func, args, kwargs, out):
            self._count(func, args, count)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        return out

    def _count(self, func: Operator, args: tuple[object, ...], count: int) -> None:
        first = next(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        kind: Kind = "fp32"
        if first.dtype in (torch.bfloat16, torch.float16):
            kind = "bf16"
        elif func._overloadpacket in CONVOLUTIONS:
            kind = "tf32"
        counts = self.flops[self._phase or ("forward" if torch.is_grad_enabled() else "frozen")]
        counts[kind] = counts.get(kind, 0) + count

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known or key in self._held:
            return
        size = storage.nbytes()

        def free(_: weakref.ref[torch.UntypedStorage]) -> None:
            self._held.pop(key, None)
            self.live -= size

        self._held[key] = weakref.ref(storage, free)
        self.live += size
        self.peak = max(self.peak, self.live)


def total(flops: Mapping[Kind, int]) -> int:
    """Operations of all dtypes together."""
    return sum(flops.values())


def added(parts: Iterable[Mapping[Kind, float]]) -> dict[Kind, float]:
    """Sums, kind by kind."""
    sums: dict[Kind, float] = defaultdict(float)
    for part in parts:
        for kind, count in part.items():
            sums[kind] += count
    return dict(sums)
