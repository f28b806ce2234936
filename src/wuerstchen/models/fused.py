"""Layers without gradients: fused, in place and a strip at a time.

The modules own the weights and define the result; this file computes it with few passes over
memory. Apart from matrix products the cost is in large new maps: on a CPU the first touch of fresh
memory takes several times as long as the arithmetic (docs/log.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIP = 2**20
"""Values of a map that are computed at once, on a CPU: 4 MB in fp32, which stay in the cache.

Four times as many of the map between the two layers of a block, which is four times as wide.
"""

_FUSED = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""oneDNN's linear layer with activation or addition; None in builds of torch without oneDNN."""


def can_fuse(*layers: nn.Module) -> bool:
    """Whether the weights of the layers may be used directly: no gradient, tracing or wrapper.

    A wrapped layer (an adapter, a hook) has to be called; a compiler fuses by itself and better.
    """
    plain = all(type(layer) in (nn.Linear, nn.Conv2d) for layer in layers)
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False, add: Tensor | None = None
) -> Tensor:
    """(..., I) x to (..., O): x weight^T + bias, then GELU, or plus (..., O) `add`."""
    if _is_onednn(x, weight):
        if add is not None:
            summed: Tensor = _FUSED.binary(x, add.contiguous(), weight, bias, "add")  # type: ignore[union-attr]
            return summed
        kind = "gelu" if gelu else "none"
        fused: Tensor = _FUSED.default(x, weight, bias, kind, [], "none")  # type: ignore[union-attr]
        return fused
    y = F.linear(x, weight, bias)
    if gelu:
        torch.ops.aten.gelu_(y)
    return y if add is None else y.add_(add)


def apply(layer: nn.Module, x: Tensor, add: Tensor | None = None) -> Tensor:
    """A linear layer of (..., I) x, plus `add`; wrapped and trained layers are called."""
    if isinstance(layer, nn.Linear) and can_fuse(layer):
        return linear(x, layer.weight, layer.bias, add=add)
    y: Tensor = layer(x)
    return y if add is None else y + add


def energy(x: Tensor) -> Tensor:
    """(B, H, W, C) to the (B, 1, 1, C) roots of the sums of squares over the map, in fp32."""
    if x.device.type != "cpu":
        norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)
        return norm
    rows = x.flatten(1, 2)  # (B, HW, C)
    total = x.new_zeros(len(x), x.shape[-1], dtype=torch.float32)
    for strip in rows.split(max(1, STRIP // (len(x) * x.shape[-1])), dim=1):
        total += strip.float().square().sum(dim=1)
    return total.sqrt()[:, None, None]  # (B, 1, 1, C)


def strips(height: int, row: int, device: torch.device) -> list[tuple[int, int]]:
    """First and last row (exclusive) of the strips in which a map of `height` rows is computed.

    row  values in one row of the widest intermediate map
    """
    step = height if device.type != "cpu" else min(height, max(1, STRIP * 4 // row))
    return [(start, min(start + step, height)) for start in range(0, height, step)]


def _is_onednn(x: Tensor, weight: Tensor) -> bool:
    # In fp32 torch uses another library for linear layers, which is slower on many CPUs. For a
    # weight that is a view of another, oneDNN has only a reference version, 100s of times slower.
    return (
        _FUSED is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
    )
