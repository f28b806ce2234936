"""Makes operations on the meta device what they would be on the planned device.

On the meta device torch uses the plain path of everything: no fused attention, float masks for
dropout, and no autocast. These modes restore what affects memory.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wuerstchen.models.blocks import AttentionBlock, ConvBlock, TimeBlock

Target = Literal["accelerator", "cpu"]

LOWERED = frozenset(
    {
        *(F.linear, F.conv2d, F.conv_transpose2d, F.scaled_dot_product_attention),
        *(torch.matmul, torch.bmm, torch.addmm, torch.baddbmm, Tensor.matmul, Tensor.__matmul__),
    }
)
"""What autocast computes in bf16 (docs.pytorch.org/docs/stable/amp.html, ops by their names)."""

RAISED: dict[Target, frozenset[object]] = {
    "accelerator": frozenset(
        {F.layer_norm, F.softmax, torch.softmax, Tensor.softmax, Tensor.square, Tensor.sum}
        | {F.mse_loss, F.l1_loss}
    ),
    "cpu": frozenset({F.mse_loss}),
}
"""What it computes in fp32, of the functions called here."""


@final
@dataclass(frozen=True)
class Setting:
    """Device and precision of a step."""

    target: Target
    bf16: bool

    def kernels(self) -> AbstractContextManager[object]:
        """Around a whole step."""
        return _Kernels(self.target)

    def forward(self) -> AbstractContextManager[object]:
        """Around the forward pass of a network that learns."""
        return self._autocast(keeps=True)

    @contextmanager
    def backward(self, networks: Iterable[nn.Module]) -> Iterator[None]:
        """Around a backward pass: recomputed activations run under the same modes.

        torch drops such modes in the backward pass; so each block that a checkpoint may recompute
        enters them again.
        """
        with ExitStack() as hooks:
            for block in (block for network in networks for block in network.modules()):
                if isinstance(block, ConvBlock | TimeBlock | AttentionBlock):
                    hooks.enter_context(around_forward(block, self._recomputed))
            yield

    @contextmanager
    def _recomputed(self) -> Iterator[None]:
        with _Kernels(self.target), self._autocast(keeps=False):
            yield

    def _autocast(self, *, keeps: bool) -> AbstractContextManager[object]:
        return _Autocast(RAISED[self.target], keeps=keeps) if self.bf16 else nullcontext()


@contextmanager
def around_forward(
    module: nn.Module, context: Callable[[], AbstractContextManager[object]]
) -> Iterator[None]:
    """Enter a context whenever the module runs; left also if a checkpoint stops it early."""
    inside = ExitStack()

    def enter(module: nn.Module, args: object) -> None:
        del module, args
        inside.enter_context(context())

    def leave(module: nn.Module, args: object, out: object) -> None:
        del module, args, out
        inside.close()

    with ExitStack() as hooks:
        hooks.callback(module.register_forward_pre_hook(enter).remove)
        hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


class _Kernels(TorchFunctionMode):
    """Attention and dropout as the target computes them."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(self._target, *args, **kwargs)  # type: ignore[arg-type]
        if func is F.dropout:
            return _dropout(*args, **kwargs)  # type: ignore[arg-type]
        return func(*args, **kwargs)


class _Autocast(TorchFunctionMode):
    """Casts arguments as autocast does.

    keeps  whether casts of parameters are kept for the next use, as within one forward pass
    """

    def __init__(self, raised: frozenset[object], *, keeps: bool) -> None:
        super().__init__()
        self._raised, self._keeps = raised, keeps
        self._kept: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func in LOWERED:
            args = tuple(self._lower(value) for value in args)
            kwargs = {key: self._lower(value) for key, value in kwargs.items()}
        elif func in self._raised:
            args = tuple(_raise(value) for value in args)
        return func(*args, **kwargs)

    def _lower(self, value: object) -> object:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (self._keeps and value.requires_grad and value.is_leaf):
            return value.to(torch.bfloat16)
        if id(value) not in self._kept:
            self._kept[id(value)] = value.to(torch.bfloat16)
        return self._kept[id(value)]


def _raise(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _attention(
    target: Target,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k) v of (B, heads, N, D), by the kernel that the target would use.

    On a CPU that is the plain formula in training, as in `blocks.attend`; the text encoder does
    not call that, but its sequences are short and its score matrices small.
    """
    del attn_mask, enable_gqa
    if target == "cpu" and q.requires_grad and not is_causal:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, N, M)
        plain: Tensor = scores.softmax(dim=-1).to(v) @ v
        return plain
    if target == "accelerator" and q.dtype == torch.bfloat16:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        mixed: Tensor = flash(q, k, v, dropout_p, is_causal, scale=scale)[0]
        return mixed
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    mixed = efficient(q, k, v, None, q.requires_grad, dropout_p, is_causal, scale=scale)[0]
    return mixed


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As in `models.dropout`, which keeps a mask of bytes."""
    del inplace
    if not training or p == 0:
        return x
    dropped: Tensor = torch.native_dropout(x, p, True)[0]
    return dropped
