"""Networks that are small, and whose every weight matters."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from wuerstchen.config import (
    CompressorModel,
    StageAModel,
    StageBModel,
    StageCModel,
    TextConfig,
)
from wuerstchen.models.text import TextEncoder, small_text_encoder

N = TypeVar("N", bound=nn.Module)

A = StageAModel(width=16, depth=2, codebook=32, scale=0.4)
B = StageBModel(
    widths=(8, 16),
    blocks=(1, 2),
    heads=(0, 2),
    semantics=(False, True),
    condition_width=16,
    text_width=32,
    time_width=16,
)
C = StageCModel(width=16, depth=2, heads=2, text_width=32, time_width=16)
COMPRESSOR = CompressorModel(width=0.25, depth=0.1)
TEXT = TextConfig(vocab_size=600, max_length=12, width=32, depth=1, heads=2)


def randomised(network: N, seed: int = 0) -> N:
    """Give every parameter and statistic a random value; many start at zero and would hide.

    Weights have half the spread that keeps the size of what passes through; all else has 0.1.
    """
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            is_weight = parameter.dim() > 1 and len(parameter) > 1
            spread = 0.5 / parameter[0].numel() ** 0.5 if is_weight else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * spread)
        for name, statistic in network.named_buffers():
            if name.endswith("running_mean"):
                statistic.copy_(torch.randn(statistic.shape, generator=rng) * 0.1)
            if name.endswith("running_var"):
                statistic.copy_(1 + torch.rand(statistic.shape, generator=rng))
    return network.eval()


def small_text(seed: int = 0) -> TextEncoder:
    encoder = small_text_encoder(TEXT, ["a red fox", "two blue birds", "a cat & a dog!!"])
    return randomised(encoder, seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def keep_from_one(output: nn.Module) -> None:
    """Keep Stage C's B from 1, where dividing by |1 - B| makes rounding errors large."""
    for parameter in output.parameters():
        parameter.mul_(0.2)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
