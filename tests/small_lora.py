"""A LoRA for the small model, as a file."""

from pathlib import Path

import torch

from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.lora import Lora, LoraLayer, save_lora

LAYERS = ("blocks.0.channelwise.0", "blocks.2.attention.to_k", "blocks.5.attention.to_q")
"""Layers of Stage C that it changes: of a convolution, and what text and cells become."""


def write_lora(path: Path, pipeline: Pipeline, seed: int = 0) -> Path:
    rng = torch.Generator().manual_seed(seed)
    layers = {}
    for name in LAYERS:
        weight = pipeline.cascade.stage_c.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        down = torch.randn(2, weight.shape[1], generator=rng) * 0.3
        up = torch.randn(len(weight), 2, generator=rng) * 0.3
        layers[name] = LoraLayer(down=down, up=up, alpha=2.0)
    save_lora(path, Lora(source="test", format="kohya", layers={"stage_c": layers}), style="kohya")
    return path
