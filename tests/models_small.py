"""A small random model for tests: all three stages, every weight away from its start."""

import torch
from torch import nn

from wuerstchen.config import CompressorModel, StageAModel, StageBModel, StageCModel, TextConfig
from wuerstchen.inference.model_info import Defaults, ModelInfo
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, small_text_encoder

CAPTIONS = ("a red apple", "a green hat", "the blue whale is asleep", "two yellow birds")
CHANNELS = 6
"""Of the semantics."""


def small_pipeline(seed: int = 0) -> Pipeline:
    """Draws 128 x 128 noise-like images in a tenth of a second; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = (
            StageA(StageAModel(width=16, depth=2, codebook=32, scale=0.2)),
            StageB(
                StageBModel(
                    widths=(8, 16),
                    blocks=(1, 1),
                    heads=(0, 2),
                    semantics=(False, True),
                    semantic_channels=CHANNELS,
                    condition_width=16,
                    text_width=24,
                    time_width=8,
                )
            ),
            StageC(
                StageCModel(
                    semantic_channels=CHANNELS,
                    width=32,
                    depth=2,
                    heads=2,
                    text_width=16,
                    time_width=8,
                )
            ),
            small_text(width=16),
            small_text(width=24),
        )
        for part in parts:
            stir(part)
    nn.init.constant_(parts[0].out_block[0].bias, 0.5)  # type: ignore[arg-type]  # mid grey
    info = ModelInfo(
        name="small",
        size=128,
        # As in diffusers, so that images can be compared with its own.
        defaults=Defaults.model_validate(
            {
                "prior_num_inference_steps": 6,
                "prior_sampler": "ddpm",
                "prior_spacing": "time",
                "prior_guidance_interval": (0.0, 1.0),
                "num_inference_steps": 4,
                "decoder_sampler": "ddpm",
                "decoder_spacing": "time",
            }
        ),
    )
    return Pipeline(*parts, info, small_compressor())


def small_compressor() -> Compressor:
    """Apart from the other networks, whose weights do not depend on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        compressor = Compressor(CompressorModel(channels=CHANNELS, width=0.1, depth=0.1))
        return compressor.eval()


def small_text(width: int) -> TextEncoder:
    config = TextConfig(vocab_size=600, max_length=12, width=width, depth=1, heads=2)
    return small_text_encoder(config, CAPTIONS)


def stir(network: nn.Module) -> None:
    """Move every weight, so that no part is the identity that it starts as."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.07)
