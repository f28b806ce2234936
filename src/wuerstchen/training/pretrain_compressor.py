"""Pretraining of the compressor, for training without ImageNet weights.

A published compressor starts from weights that know images. A random compressor and an untrained
Stage B block each other for long (docs/log.md). Here the compressor learns with a small decoder
that reconstructs latents from its semantics; the decoder is discarded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import scale_semantics
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.pretrain_heads import LatentHead
from wuerstchen.models.stage_a import StageA
from wuerstchen.noise import RandomStreams
from wuerstchen.psnr import psnr_from_mse
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStageA
from wuerstchen.training.stage import (
    AT_ONCE,
    GRID_COLUMNS,
    CachedEncoder,
    Loss,
    Networks,
    Stage,
    TrainState,
    device_of,
    held_out_batch,
)


class CompressorAndHead(nn.Module):
    """Both networks as one forward pass."""

    def __init__(self, compressor: Compressor, head: LatentHead) -> None:
        super().__init__()
        self.compressor = compressor
        self.head = head

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 3, 32 h, 32 w) pixels to latents of H x W cells."""
        scaled = scale_semantics(self.compressor(image))
        latent: Tensor = self.head(scaled, size)
        return latent


@final
class CompressorPretrainer(Stage):
    name = "b-pretraining"
    trained = "compressor"

    def __init__(self, config: Config, stage_a: StageA, compressor: Compressor) -> None:
        training = config.stage_b.pretraining
        assert training is not None
        self.training = training
        self._stage_a = FrozenStageA(stage_a)
        self._latents = CachedEncoder(self._stage_a.encode, config.data.cache_gib)
        head = LatentHead(config.compressor.channels, training.width, training.depth)
        self._both = CompressorAndHead(compressor, head)

    def networks(self) -> dict[str, nn.Module]:
        return {"compressor": self._both}

    def frozen_networks(self) -> dict[str, nn.Module]:
        return {"stage_a": self._stage_a.network}

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        del streams, state
        latent = self._latents(batch, device_of(self._both))
        error = F.mse_loss(self._reconstruct(networks["compressor"], batch.images, latent), latent)
        yield Loss("compressor", error, {"error": error})

    @torch.no_grad()
    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        errors, squares = [], []
        for image in held_out_batch(test, count).images.split(AT_ONCE):
            latent = self._stage_a.encode(image.to(device_of(network)))
            reconstructed = self._reconstruct(network, image, latent)
            errors.append((reconstructed - latent).square().mean(dim=(1, 2, 3)))
            decoded = self._stage_a.decode(reconstructed)
            squares.append((decoded - image).square().mean(dim=(1, 2, 3)))
        return {
            "held_out": float(torch.cat(errors).mean()),
            "psnr": float(psnr_from_mse(torch.cat(squares)).mean()),
        }

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals above what the small decoder reconstructs."""
        image = held_out_batch(test, GRID_COLUMNS).images
        latent = self._stage_a.encode(image.to(device_of(network)))
        return sample_grid([image, self._stage_a.decode(self._reconstruct(network, image, latent))])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, CompressorAndHead)
        weights.compressor.save(folder, network.compressor)

    def _reconstruct(self, network: nn.Module, image: Tensor, latent: Tensor) -> Tensor:
        small = shrink(image.to(latent.device))
        reconstructed: Tensor = network(small, (latent.shape[-2], latent.shape[-1]))
        return reconstructed.float()
