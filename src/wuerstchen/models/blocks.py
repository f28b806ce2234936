"""What Stage B and Stage C are built from: convolution, time and attention blocks.

Shapes: B pictures, C channels, H x W cells, L text tokens, S skip channels.
Maps are (B, C, H, W) to the caller and channels-last in memory, so that going to (B, H, W, C)
for a norm or a linear layer is a change of view and not a copy.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        energy = x.square().sum(dim=(1, 2), keepdim=True).clamp(min=1e-12).sqrt()  # (B, 1, 1, C)
        response = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)  # (B, 1, 1, C)
        # Under autocast the weights are fp32 and x is not: the large map has to keep its type.
        return torch.addcmul(self.beta.to(x), x, (1 + self.gamma * response).to(x))  # (B, H, W, C)


class ConvBlock(nn.Module):
    """ConvNeXt V2 residual block (arXiv:2301.00808) with optional maps joined after the norm."""

    def __init__(self, width: int, skip_width: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.norm = MapNorm(width)
        self.channelwise = nn.Sequential(
            nn.Linear(width + skip_width, 4 * width),
            nn.GELU(),
            GlobalResponseNorm(4 * width),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        y = torch.cat([self.norm(self.depthwise(x)), *skips], dim=1)  # (B, C + S, H, W)
        y = self.channelwise(y.permute(0, 2, 3, 1))  # (B, H, W, C)
        out: Tensor = x + y.permute(0, 3, 1, 2)  # (B, C, H, W)
        return out


class TimeBlock(nn.Module):
    """Scales and shifts every channel by the diffusion time."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.mapper = nn.Linear(time_width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        mapped: Tensor = self.mapper(time)[:, :, None, None]  # (B, 2C, 1, 1)
        scale, shift = mapped.chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class Attention(nn.Module):
    """Multi-head attention whose parameters carry the names that diffusers gives them."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        q = self.to_q(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, HW, D)
        k = self.to_k(context).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, D)
        v = self.to_v(context).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y: Tensor = self.to_out(attend(q, k, v).transpose(1, 2).flatten(2))  # (B, HW, C)
        return y


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(D)) v over (B, heads, N, D), the way that is fastest.

    That is torch's fused kernel, except in training on a CPU: its backward pass takes several
    times as long there as that of the plain formula (docs/log.md).
    """
    if q.device.type == "cpu" and q.requires_grad:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, HW, N)
        mixed: Tensor = scores.softmax(dim=-1).to(v) @ v
        return mixed
    fused: Tensor = F.scaled_dot_product_attention(q, k, v)
    return fused


class AttentionBlock(nn.Module):
    """Self and cross attention in one softmax: cells look at all cells and at the text."""

    def __init__(self, width: int, text_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = MapNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(text_width, width))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        cells = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        context = torch.cat([cells, self.kv_mapper(text)], dim=1)  # (B, HW + L, C)
        y: Tensor = self.attention(cells, context).transpose(1, 2)  # (B, C, HW)
        out: Tensor = x + y.unflatten(2, x.shape[-2:])
        return out


def time_embedding(t: Tensor, width: int) -> Tensor:
    """(B,) times in [0, 1] to (B, width) features: sines, then cosines, of 10000 t."""
    half = width // 2
    rates = torch.arange(half, device=t.device).float().mul(-math.log(10000) / (half - 1)).exp()
    angles = t.float()[:, None] * 10000 * rates  # (B, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(t.dtype)


def initialise(network: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for all linear and convolution layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
