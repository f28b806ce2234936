"""How much of an image survives Stage A alone, and the way through its semantics."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wuerstchen.inference.generation_plan import Plan
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.noise import seeded


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """The same (B, 3, H, W) images in [0, 1] after different ways there and back."""

    stage_a: Tensor
    """Encoded and decoded by Stage A."""
    codes: Tensor
    """The same, with every latent replaced by its nearest code."""
    semantics: Tensor
    """Compressed to semantics, drawn from them by Stage B, decoded by Stage A."""


@torch.inference_mode()
def reconstruct(
    pipeline: Pipeline,
    compressor: Compressor,
    image: Tensor,
    captions: Sequence[str],
    plan: Plan,
    seed: int,
) -> Reconstructions:
    """Send (B, 3, H, W) images in [0, 1] all ways; the k-th draws its noise from seed + k.

    captions  what Stage B reads, as in its training; models whose Stage B was trained without
              text are blind to them
    """
    image = image.to(pipeline.device, pipeline.dtype)
    stage_a, compressor = pipeline.stage_a, compressor.to(pipeline.device, pipeline.dtype)
    latent = stage_a.raw_latent(image)
    drawn = pipeline.latents_from_semantics(
        compressor(shrink(image)),
        pipeline.encode(pipeline.text_b, captions),
        seeded(seed, len(image)),
        plan.decoder,
        unwanted=pipeline.encode(pipeline.text_b, [""] * len(image)),
    )
    return Reconstructions(
        stage_a.raw_image(latent).clamp(0, 1).cpu(),
        stage_a.raw_image(stage_a.codebook(latent).latent).clamp(0, 1).cpu(),
        pipeline.image_from_latents(drawn).cpu(),
    )
