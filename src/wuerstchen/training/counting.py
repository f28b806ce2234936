"""Operations of a training step, counted while it runs: two for a multiplication and an addition.

Counted are matrix products, convolutions and attention, forward and backward, what frozen networks
encode and what checkpoints repeat included; element-wise work is not.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wuerstchen.flops import convolution_backward


class Counting(TorchDispatchMode):
    """`flops` of everything that runs while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **dict(kwargs or {}))
        packet = func._overloadpacket
        if str(packet) == "mkldnn._linear_pointwise":
            self.flops += _linear(args)
        elif packet is torch.ops.aten.convolution_backward:
            self.flops += convolution_backward(*args, out_val=out)  # type: ignore[arg-type]
        elif packet in flop_registry:
            self.flops += int(flop_registry[packet](*args, **dict(kwargs or {}), out_val=out))
        return out


def _linear(args: Sequence[object]) -> int:
    """Of (..., I) x and an (O, I) weight, by oneDNN; a map that is added comes between them."""
    x, *_, weight = (arg for arg in args if isinstance(arg, Tensor) and arg.dim() >= 2)
    return 2 * math.prod(x.shape[:-1]) * weight.shape[0] * weight.shape[1]
