"""The stages below Stage C, finished and frozen: from images to semantics and back.

B images, S semantic channels, h x w semantic cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.data import Batch
from wuerstchen.geometry import latent_size_of_semantics, scale_semantics, unscale_semantics
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.text import TextEncoder
from wuerstchen.training.latent_cache import Encoding
from wuerstchen.training.stage import Cache, Draws
from wuerstchen.training.stage_b import LOOK_STEPS


class FrozenStages:
    """Compressor, Stage B and Stage A; semantics of training images are kept in memory."""

    def __init__(
        self,
        stage_a: StageA,
        stage_b: StageB,
        compressor: Compressor,
        text: TextEncoder | None,
        text_length: int,
        memory: float,
        encoded: Encoding | None = None,
    ) -> None:
        """
        text         Stage B's own encoder, if it reads text
        text_length  tokens of a caption, which a Stage B that reads no text still counts
        memory       GiB for the semantics of training images
        encoded      their semantics on the disk
        """
        self._stage_a = stage_a.eval().requires_grad_(False)
        self._stage_b = stage_b.eval().requires_grad_(False)
        self._compressor = compressor.eval().requires_grad_(False)
        self.text, self._text_length = text, text_length
        self._kept = Cache(self.compress, memory)
        self.encoded = encoded

    def semantics(self, batch: Batch, device: torch.device) -> Tensor:
        """(B, S, h, w) scaled semantics of training images."""
        if self.encoded is not None:
            return self.encoded.rows(batch.indices).to(device)
        return self._kept(batch, device)

    @torch.no_grad()
    def compress(self, image: Tensor) -> Tensor:
        """Scaled semantics of (B, 3, H, W) images: what Stage C diffuses."""
        semantics: Tensor = self._compressor.to(image.device)(shrink(image))
        return scale_semantics(semantics)

    @torch.no_grad()
    def decode(self, scaled: Tensor, captions: Sequence[str], draws: Draws) -> Tensor:
        """(B, 3, H, W) images on the CPU for scaled semantics."""
        device = scaled.device
        semantics = unscale_semantics(scaled)
        size = latent_size_of_semantics(semantics.shape[-2], semantics.shape[-1])
        if self.text is None:  # zeros in place of what Stage B does not read
            width = self._stage_b.config.text_width
            text = torch.zeros(len(captions), self._text_length, width, device=device)
        else:
            text = self.text.to(device)(captions)
        stage_b = self._stage_b.to(device)
        denoise = diffusion.unguided(stage_b, stage_b.condition(semantics, text, size))
        start = draws.normal(torch.empty(len(captions), 4, *size))
        times = diffusion.uniform_times(LOOK_STEPS)
        *_, latent = diffusion.ddpm(denoise, start, times, draws.normal)
        return self._stage_a.to(device).decode(latent).cpu()
