"""Counts floating-point operations: two for a multiplication and an addition.

Counted are matrix products, convolutions and attention, forward and backward, including what
frozen networks encode and checkpoints recompute; element-wise work is not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Operator = torch._ops.OpOverload[..., object]

# Inference mode hands composite operators over whole. They are run as they are: their parts
# round differently, and counting must not change what a training learns.
WHOLE_CONVOLUTIONS = {  # whether transposed
    torch.ops.aten.conv1d: False,
    torch.ops.aten.conv2d: False,
    torch.ops.aten.conv_transpose2d: True,
}
WHOLE_ATTENTION = (
    torch.ops.aten.scaled_dot_product_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
)


@final
class FlopCounter(TorchDispatchMode):
    """`total` of everything that runs while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Operator,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs)
        self.total += operations(func, args, kwargs, out)
        return out


def operations(
    func: Operator, args: Sequence[object], kwargs: Mapping[str, object], out: object
) -> int:
    """Of one call of an operator of torch."""
    packet = func._overloadpacket
    if packet is torch.ops.aten.linear or str(packet) == "mkldnn._linear_pointwise":
        return _linear(args)
    if packet is torch.ops.aten.matmul:
        return _product(args, out)
    if packet in WHOLE_CONVOLUTIONS:
        return _convolution(args, out, transposed=WHOLE_CONVOLUTIONS[packet])
    if packet in WHOLE_ATTENTION:
        return _attention(*args[:3])  # type: ignore[arg-type]
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return _attention_backward(*args[:4])  # type: ignore[arg-type]
    if packet is torch.ops.aten.convolution_backward:
        return _convolution_backward(*args)  # type: ignore[arg-type]
    formula: Callable[..., int] | None = flop_registry.get(packet)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


def _linear(args: Sequence[object]) -> int:
    """Of (..., I) x and an (O, I) weight, by oneDNN; a map that is added comes between them."""
    x, *_, weight = (arg for arg in args if isinstance(arg, Tensor) and arg.dim() >= 2)
    return 2 * math.prod(x.shape[:-1]) * weight.shape[0] * weight.shape[1]


def _product(args: Sequence[object], out: object) -> int:
    """Of (..., N, K) by (..., K, M), or of vectors."""
    first = args[0]
    assert isinstance(first, Tensor) and isinstance(out, Tensor)
    return 2 * out.numel() * first.shape[-1]


def _convolution(args: Sequence[object], out: object, *, transposed: bool) -> int:
    x, weight = args[:2]
    assert isinstance(x, Tensor) and isinstance(weight, Tensor) and isinstance(out, Tensor)
    shapes = list(x.shape), list(weight.shape), list(out.shape)
    return int(conv_flop_count(*shapes, transposed=transposed))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> int:
    """Of kernels that torch's own counter does not know."""
    return int(sdpa_flop_count(q.shape, k.shape, v.shape))


def _attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor) -> int:
    """As `_attention`, with the scores computed again."""
    return int(sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape))


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *rest: object) -> int:
    """As many operations for each gradient as for the convolution.

    torch's own formula ignores the groups, and would count a depthwise one as a full one.
    """
    transposed, mask = rest[4], rest[7]
    assert isinstance(transposed, bool) and isinstance(mask, list | tuple)
    shapes = list(x.shape), list(weight.shape), list(gradient.shape)
    once = int(conv_flop_count(*shapes, transposed=transposed))
    return once * (bool(mask[0]) + bool(mask[1]))
