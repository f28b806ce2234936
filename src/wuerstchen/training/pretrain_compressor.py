"""What comes before Stage B where no ImageNet weights are at hand: the compressor learns alone.

The published compressor starts from ImageNet. A random one gives Stage B so little to hold on to
that both learn slowly (docs/log.md). Here it learns with a small decoder to redraw the latents; the
decoder is thrown away.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.evaluation.metrics import psnr_from_mse
from wuerstchen.geometry import scale_semantics
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.pretrain_heads import LatentHead
from wuerstchen.models.stage_a import StageA
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.stage import (
    AT_ONCE,
    PEEK,
    Cache,
    Draws,
    Loss,
    Networks,
    Stage,
    held_out_batch,
)


class CompressorAndHead(nn.Module):
    """Both networks as one forward pass."""

    def __init__(self, compressor: Compressor, sketch: LatentHead) -> None:
        super().__init__()
        self.compressor = compressor
        self.sketch = sketch

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 3, 32 h, 32 w) pixels to latents of H x W cells."""
        scaled = scale_semantics(self.compressor(image))
        latent: Tensor = self.sketch(scaled, size)
        return latent


class CompressorPretrainer(Stage):
    name = "b-pretraining"
    trained = "compressor"

    def __init__(self, config: Config, stage_a: StageA) -> None:
        recipe = config.stage_b.pretraining
        assert recipe is not None
        self.training = recipe
        self._stage_a = stage_a.eval().requires_grad_(False)
        self._latents = Cache(self._encode, config.data.cache_gib)
        compressor = Compressor(config.compressor)
        if config.stage_b.training.compressor_weights:
            path = Path(config.stage_b.training.compressor_weights)
            weights.load_backbone(compressor, path)
        sketch = LatentHead(config.compressor.channels, recipe.width, recipe.depth)
        self._both = CompressorAndHead(compressor, sketch)

    def networks(self) -> dict[str, nn.Module]:
        return {"compressor": self._both}

    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        latent = self._latents(batch, draws.device)
        error = F.mse_loss(self._redraw(networks["compressor"], batch.images, latent), latent)
        yield Loss("compressor", error, {"error": error})

    @torch.no_grad()
    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        device = next(network.parameters()).device
        errors, squares = [], []
        for image in held_out_batch(test, count).images.split(AT_ONCE):
            latent = self._encode(image.to(device))
            redrawn = self._redraw(network, image, latent)
            errors.append((redrawn - latent).square().mean(dim=(1, 2, 3)))
            decoded = self._stage_a.decode(redrawn).cpu()
            squares.append((decoded - image).square().mean(dim=(1, 2, 3)))
        return {
            "held_out": float(torch.cat(errors).mean()),
            "psnr": float(psnr_from_mse(torch.cat(squares)).mean()),
        }

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals above what the small decoder redraws."""
        image = held_out_batch(test, PEEK).images
        latent = self._encode(image.to(next(network.parameters()).device))
        redrawn = self._stage_a.decode(self._redraw(network, image, latent))
        return sample_grid([image, redrawn.cpu()])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, CompressorAndHead)
        weights.compressor.save(folder, network.compressor)

    def _redraw(self, network: nn.Module, image: Tensor, latent: Tensor) -> Tensor:
        small = shrink(image.to(latent.device))
        redrawn: Tensor = network(small, (latent.shape[-2], latent.shape[-1]))
        return redrawn.float()

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor:
        latent: Tensor = self._stage_a.to(image.device).encode(image)
        return latent
