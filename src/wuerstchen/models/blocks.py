"""Blocks of Stages B and C: convolution, time and attention.

Shapes: B images, C channels, H x W cells, L text tokens, S skip channels.
Maps are (B, C, H, W) to the caller and channels-last in memory, so that permuting to (B, H, W, C)
for a norm or a linear layer is a view and not a copy.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.models import fused
from wuerstchen.models.dropout import Dropout


class MapNorm(nn.Module):
    """LayerNorm over the channels of a (B, C, H, W) map, without weights (eps 1e-6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), (self.width,), eps=1e-6)  # (B, H, W, C)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)


class GlobalResponseNorm(nn.Module):
    """Lets channels compete by their energy over the whole map (arXiv:2301.00808, section 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        # The clamp keeps the gradient of the root finite where a channel is zero everywhere.
        # In fp32 always: the sum of so many squares is beyond the range of fp16.
        energy = x.float().square().sum(dim=(1, 2), keepdim=True).clamp(min=1e-12).sqrt()
        # Under autocast the weights are fp32 and x is not: the large map has to keep its dtype.
        return torch.addcmul(self.beta.to(x), x, self._gain(energy).to(x))  # (B, H, W, C)

    def normalise_(self, x: Tensor) -> Tensor:
        """`forward` in place, where no gradient is needed."""
        gain = self._gain(fused.energy(x)).to(x)
        return torch.addcmul(self.beta.to(x), x, gain, out=x)

    def _gain(self, energy: Tensor) -> Tensor:
        """(B, 1, 1, C): 1 + gamma times each channel's energy over that of the mean channel."""
        return 1 + self.gamma * (energy / (energy.mean(dim=-1, keepdim=True) + 1e-6))


class Folded(NamedTuple):
    """The first linear layer of a `ConvBlock`, reading semantics at their own few channels."""

    weight: Tensor  # (4C, C + S + semantic channels)
    bias: Tensor  # (4C,)


class ConvBlock(nn.Module):
    """ConvNeXt V2 residual block (arXiv:2301.00808), optional maps concatenated after the norm."""

    def __init__(self, width: int, skip_width: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.norm = MapNorm(width)
        self.channelwise = nn.Sequential(
            nn.Linear(width + skip_width, 4 * width),
            nn.GELU(),
            GlobalResponseNorm(4 * width),
            Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor, *maps: Tensor, folded: Folded | None = None) -> Tensor:
        """(B, C, H, W) x and the maps to concatenate, in the order of the layer's inputs.

        folded  layer in place of the block's first one, which reads the last map unmapped
        """
        first, gelu, grn, dropout, last = self.channelwise
        y = torch.cat([self.norm(self.depthwise(x)), *maps], dim=1)  # (B, C + S, H, W)
        y = y.permute(0, 2, 3, 1)  # (B, H, W, C + S)
        if fused.can_fuse(first, last):
            layer = folded or Folded(first.weight, first.bias)  # type: ignore[arg-type]
            hidden = fused.linear(y, *layer, gelu=True)  # (B, H, W, 4C)
            hidden = grn.normalise_(hidden)  # type: ignore[operator]
            return fused.apply(last, hidden, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = first(y) if folded is None else F.linear(y, folded.weight, folded.bias)
        y = last(dropout(grn(gelu(y))))  # (B, H, W, C)
        out: Tensor = x + y.permute(0, 3, 1, 2)  # (B, C, H, W)
        return out

    def fold(self, mapper: nn.Module) -> Folded | None:
        """The first layer, and the 1x1 convolution that maps the last of its maps, as one layer.

        It reads the few channels before the mapper. None if one of the two is wrapped.
        """
        first = self.channelwise[0]
        if type(first) is not nn.Linear or type(mapper) is not nn.Conv2d:
            return None
        assert mapper.bias is not None
        mapped = mapper.weight.flatten(1)  # (condition width, semantic channels)
        own, of_map = first.weight.split([first.in_features - len(mapped), len(mapped)], dim=1)
        weight = torch.cat([own, of_map @ mapped], dim=1)
        return Folded(weight, first.bias + of_map @ mapper.bias)


class TimeBlock(nn.Module):
    """Scales and shifts every channel by the diffusion time."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.mapper = nn.Linear(time_width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.mapper(time)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        return torch.addcmul(shift, x, 1 + scale)


class TextKeys(NamedTuple):
    """Keys and values of a caption in an attention block, the same in every step."""

    keys: Tensor  # (B, L, C)
    values: Tensor  # (B, L, C)


class Attention(nn.Module):
    """Multi-head attention with the parameter names of diffusers."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width), Dropout(dropout))

    def keys_values(self, context: Tensor) -> TextKeys:
        """(B, N, C) context to its keys and values."""
        return TextKeys(fused.apply(self.to_k, context), fused.apply(self.to_v, context))

    def forward(self, cells: Tensor, text: TextKeys, residual: Tensor) -> Tensor:
        """(B, HW, C) cells attend to all cells and to the text; `residual` is added."""
        own = self.keys_values(cells)
        q = self._split(fused.apply(self.to_q, cells))  # (B, heads, HW, D)
        k = self._split(torch.cat([own.keys, text.keys], dim=1))  # (B, heads, HW + L, D)
        v = self._split(torch.cat([own.values, text.values], dim=1))
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)  # (B, HW, C)
        last, dropout = self.to_out
        if self.training:
            trained: Tensor = residual + dropout(last(mixed))
            return trained
        return fused.apply(last, mixed, residual)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, D)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(D)) v over (B, heads, N, D), by the fastest implementation.

    That is torch's fused kernel, except for training on a CPU, where its backward pass takes
    several times as long as that of the plain formula (docs/log.md).
    """
    if q.device.type == "cpu" and q.requires_grad:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, HW, N)
        mixed: Tensor = scores.softmax(dim=-1).to(v) @ v
        return mixed
    return F.scaled_dot_product_attention(q, k, v)


class AttentionBlock(nn.Module):
    """Self and cross attention in one softmax: cells attend to all cells and to the text."""

    def __init__(self, width: int, text_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = MapNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(text_width, width))

    def condition(self, text: Tensor) -> TextKeys:
        """(B, L, D) text to its keys and values in this block."""
        found: TextKeys = self.attention.keys_values(self.kv_mapper(text))
        return found

    def forward(self, x: Tensor, text: TextKeys) -> Tensor:
        cells = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        residual = x.flatten(2).transpose(1, 2)
        y: Tensor = self.attention(cells, text, residual)  # (B, HW, C)
        out: Tensor = y.transpose(1, 2).unflatten(2, x.shape[-2:])
        return out


def time_embedding(t: Tensor, width: int) -> Tensor:
    """(B,) times in [0, 1] to (B, width) features: sines, then cosines, of 10000 t, in fp32."""
    half = width // 2
    rates = torch.arange(half, device=t.device).float().mul(-math.log(10000) / (half - 1)).exp()
    angles = t.float()[:, None] * 10000 * rates  # (B, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def initialise(network: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for all linear and convolution layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
