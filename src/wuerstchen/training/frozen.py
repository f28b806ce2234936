"""Finished, frozen stages: from images to latents or semantics, and back to images.

B images, S semantic channels, h x w semantic cells, L tokens, D text width.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from wuerstchen import diffusion
from wuerstchen.config import Prediction
from wuerstchen.geometry import latent_size_of_semantics, scale_semantics, unscale_semantics
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.noise import RandomStreams
from wuerstchen.training.stage import CachedEncoder, Rows

VALIDATION_STEPS = 12
"""Sampling steps of Stage B for grids and for the validation of reconstructions."""


@final
class FrozenStageA:
    """Images to latents and back, without gradients, on the device of what comes in."""

    def __init__(self, network: StageA) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        latent: Tensor = self.network.to(image.device).encode(image)
        return latent

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """(B, 3, H, W) images on the CPU."""
        return self.network.to(latent.device).decode(latent).cpu()


@final
class StageBText:
    """Captions as Stage B reads them; zeros for a Stage B that reads no text."""

    def __init__(self, encoder: TextEncoder | None, length: int, width: int) -> None:
        """length, width: L and D of the zeros"""
        self.encoder = None if encoder is None else encoder.eval().requires_grad_(False)
        self.width = width
        self._length = length

    def __call__(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """(B, L, D)"""
        if self.encoder is None:
            return torch.zeros(len(captions), self._length, self.width, device=device)
        return encode_frozen(self.encoder.to(device), captions)


@torch.no_grad()
def decode_semantics(
    semantics: Tensor, text: Tensor, stage_b: StageB, stage_a: FrozenStageA, streams: RandomStreams
) -> Tensor:
    """(B, S, h, w) unscaled semantics to (B, 3, H, W) images on the CPU, unguided.

    A network that predicts the data is sampled as `new_info` sets it.
    """
    size = latent_size_of_semantics(semantics.shape[-2], semantics.shape[-1])
    denoise = diffusion.unguided(stage_b, stage_b.condition(semantics, text, size))
    start = streams.normal((4, *size), semantics.device)
    if stage_b.config.predicts == "data":
        states = diffusion.ddim(denoise, start, diffusion.DATA_TIMES, streams)
    else:
        times = diffusion.uniform_times(VALIDATION_STEPS)
        states = diffusion.ddpm(denoise, start, times, streams)
    *_, latent = states
    return stage_a.decode(latent)


@final
class FrozenStages:
    """Compressor, Stage B and Stage A below Stage C."""

    def __init__(
        self,
        stage_a: StageA,
        stage_b: StageB,
        compressor: Compressor,
        text: StageBText,
        cache_gib: float,
        stored: Rows | None = None,
    ) -> None:
        """cache_gib: memory for the semantics of training images; stored: those on disk"""
        self._stage_a = FrozenStageA(stage_a)
        self._stage_b = stage_b.eval().requires_grad_(False)
        self._compressor = compressor.eval().requires_grad_(False)
        self.text = text
        self.semantics = CachedEncoder(self.compress, cache_gib, stored)
        """(B, S, h, w) scaled semantics of training images."""

    @property
    def predicts(self) -> Prediction:
        """What Stage B predicts."""
        return self._stage_b.config.predicts

    def networks(self) -> dict[str, nn.Module]:
        text = {} if self.text.encoder is None else {"text of Stage B": self.text.encoder}
        stages = {"compressor": self._compressor, "stage_b": self._stage_b}
        return {**stages, "stage_a": self._stage_a.network, **text}

    @torch.no_grad()
    def compress(self, image: Tensor) -> Tensor:
        """Scaled semantics of (B, 3, H, W) images: what Stage C diffuses."""
        semantics: Tensor = self._compressor.to(image.device)(shrink(image))
        return scale_semantics(semantics)

    def decode(self, scaled: Tensor, captions: Sequence[str], streams: RandomStreams) -> Tensor:
        """(B, 3, H, W) images on the CPU for scaled semantics."""
        text = self.text(captions, scaled.device)
        stage_b = self._stage_b.to(scaled.device)
        return decode_semantics(unscale_semantics(scaled), text, stage_b, self._stage_a, streams)
