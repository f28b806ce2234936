"""Joint training of the Semantic Compressor and Stage B on the latents of Stage A (E.2).

B images, S semantic channels, h x w semantic cells, H x W latent cells.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from wuerstchen import diffusion, weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.evaluation.metrics import psnr_from_mse
from wuerstchen.geometry import SEMANTICS_SCALE, scale_semantics, semantics_size, unscale_semantics
from wuerstchen.lora import add_lora, fused_copy, save_all_styles, trained_lora
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.latent_cache import Encoding
from wuerstchen.training.loss_weighting import held_out_errors, weighting
from wuerstchen.training.stage import (
    AT_ONCE,
    PEEK,
    Cache,
    Draws,
    Loss,
    Networks,
    ParameterGroup,
    Stage,
    even_times,
    held_out_batch,
)
from wuerstchen.weights.hub import find

NOISED_UNTIL = 0.5
"""Latest diffusion time at which training noises the semantics (version 1's code)."""

PRETRAINED_RATE = 0.1
"""Learning rate of a compressor that pretrained, relative to Stage B's."""

LOOK_STEPS = 12
"""Sampling steps for grids and for the held-out reconstruction."""


class CompressorAndStageB(nn.Module):
    """Both networks as one forward pass, so that gradients are shared among devices as usual."""

    def __init__(self, compressor: Compressor, stage_b: StageB, *, frozen: bool) -> None:
        super().__init__()
        # Not requires_grad_(not frozen): some weights of a compressor are never trained.
        self.compressor = compressor.requires_grad_(False) if frozen else compressor
        self.stage_b = stage_b
        self.frozen = frozen

    def train(self, mode: bool = True) -> Self:
        """A frozen compressor keeps the statistics of its BatchNorms too."""
        super().train(mode)
        self.compressor.train(mode and not self.frozen)
        return self

    def forward(
        self,
        image: Tensor,
        noisy: Tensor,
        t: Tensor,
        text: Tensor,
        semantic_noise: Tensor,
        semantic_t: Tensor,
        dropped: Tensor,
    ) -> Tensor:
        """The noise in (B, 4, H, W) `noisy`, told from the semantics of `image`.

        image           (B, 3, 32 h, 32 w) at the compressor's size
        semantic_noise  (B, S, h, w), joins the semantics at (B,) times semantic_t; 0: not at all
        dropped         (B, 1, 1, 1), true where the semantics become zeros
        """
        semantics = self.compressor(image)
        scaled = scale_semantics(semantics)
        noised = unscale_semantics(diffusion.add_noise(scaled, semantic_noise, semantic_t))
        semantics = torch.where((semantic_t > 0).view(-1, 1, 1, 1), noised, semantics)
        semantics = semantics.masked_fill(dropped, 0)
        condition = self.stage_b.condition(semantics, text, (noisy.shape[-2], noisy.shape[-1]))
        noise: Tensor = self.stage_b(noisy, t, condition)
        return noise


class StageBTrainer(Stage):
    name = "b"
    trained = "stage_b"

    def __init__(
        self,
        config: Config,
        stage_a: StageA,
        text: TextEncoder | None,
        pretrained: Compressor | None,
        encoded: Encoding | None = None,
    ) -> None:
        """
        text       the encoder that Stage B reads, or None for a Stage B that reads none
        pretrained  a compressor to go on with, which has learned something already
        encoded    latents of the training images on the disk
        """
        self.training = self.recipe = config.stage_b.training
        self._weight = weighting(self.recipe.loss_weighting)
        self._stage_a = stage_a.eval().requires_grad_(False)
        self._text = None if text is None else text.eval().requires_grad_(False)
        self._text_length = config.text.max_length
        self._latents = Cache(self._encode, config.data.cache_gib)
        self._encoded = encoded
        if self.recipe.init_from:
            start = find(self.recipe.init_from)
            compressor, stage_b = weights.compressor.load(start), weights.stage_b.load(start)
        else:
            compressor, stage_b = Compressor(config.compressor), StageB(config.stage_b.model)
            _suit_scale(stage_b)
        self._pretrained = pretrained is not None
        if pretrained is not None:
            compressor = pretrained
        elif self.recipe.compressor_weights:
            weights.load_backbone(compressor, Path(self.recipe.compressor_weights))
        if text is None:
            stage_b.hold_text()
        stage_b.gradient_checkpointing = self.recipe.gradient_checkpointing
        if self.recipe.lora is not None:
            add_lora(stage_b, self.recipe.lora)
        frozen = self.recipe.freeze_compressor
        self._both = CompressorAndStageB(compressor, stage_b, frozen=frozen)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_b": self._both}

    def parameter_groups(self, name: str) -> list[ParameterGroup]:
        """Stage B; its maps of the semantics, whose input is 42 times unit scale; the compressor.

        A compressor that pretrained learns at a tenth of the rate, lest a Stage B that knows
        nothing yet spoils it.
        """
        del name
        mappers = [p for p in self._both.stage_b.semantics_mappers.parameters() if p.requires_grad]
        known = {id(parameter) for parameter in mappers}
        others = [p for p in self._both.stage_b.parameters() if p.requires_grad]
        compressor = [p for p in self._both.compressor.parameters() if p.requires_grad]
        groups = [
            ParameterGroup([p for p in others if id(p) not in known], 1.0),
            ParameterGroup(mappers, 1 / SEMANTICS_SCALE),
            ParameterGroup(compressor, PRETRAINED_RATE if self._pretrained else 1.0),
        ]
        return [group for group in groups if group.parameters]

    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        t = diffusion.training_times(draws.uniform())
        noised = draws.chosen(self.recipe.semantics_noise).flatten()
        semantic_t = draws.uniform() * NOISED_UNTIL * noised
        dropped = draws.chosen(self.recipe.semantics_dropout)
        error = self._error(networks["stage_b"], batch, t, semantic_t, dropped, draws)
        value = (self._weight(t, error) * error).mean()
        yield Loss("stage_b", value, {"error": value})

    def memory(self) -> dict[str, Tensor]:
        return self._weight.memory()

    def before_step(self) -> None:
        self._weight.before_step()

    def after_step(self) -> dict[str, float]:
        return self._weight.after_step()

    @torch.no_grad()
    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        whole = held_out_batch(test, count)
        device = next(network.parameters()).device
        times = even_times(len(whole), device)
        errors, squares = [], []
        for start, batch in whole.split(math.ceil(len(whole) / AT_ONCE)):
            draws = Draws(0, batch.indices, device)
            t = times[start : start + len(batch)]
            clear = torch.zeros_like(t)
            error = self._error(network, batch, t, clear, clear.bool().view(-1, 1, 1, 1), draws)
            errors.append(error)
            image = self._sample(network, batch)
            squares.append((image - batch.images).square().mean(dim=(1, 2, 3)))
        return {
            **held_out_errors(self._weight, torch.cat(errors), times),
            "psnr": float(psnr_from_mse(torch.cat(squares)).mean()),
        }

    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals, Stage A alone, and what Stage B makes of the semantics."""
        batch = held_out_batch(test, PEEK)
        latent = self._encode(batch.images.to(next(network.parameters()).device))
        with torch.no_grad():
            alone = self._stage_a.decode(latent).cpu()
        return sample_grid([batch.images, alone, self._sample(network, batch)])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, CompressorAndStageB)
        weights.compressor.save(folder, network.compressor)
        stage_b = network.stage_b
        if self.recipe.lora is not None:
            save_all_styles(folder, trained_lora({"stage_b": stage_b}, str(folder)))
            stage_b = fused_copy(stage_b)
        weights.stage_b.save(folder, stage_b)

    def _error(
        self,
        network: nn.Module,
        batch: Batch,
        t: Tensor,
        semantic_t: Tensor,
        dropped: Tensor,
        draws: Draws,
    ) -> Tensor:
        """(B,) mean squared error of the predicted noise."""
        if network.training and self._encoded is not None:
            latent = self._encoded.rows(batch.indices).to(t.device)
        elif network.training:
            latent = self._latents(batch, t.device)
        else:  # held-out images have indices of their own
            latent = self._encode(batch.images.to(t.device))
        noise = draws.normal(latent)
        image = shrink(batch.images.to(t.device))
        cells = torch.empty(len(batch), self._channels, *semantics_size(*batch.images.shape[-2:]))
        predicted = network(
            image,
            diffusion.add_noise(latent, noise, t),
            t,
            self._encode_text(batch.captions, t.device),
            draws.normal(cells),
            semantic_t,
            dropped,
        )
        error: Tensor = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return error

    @torch.no_grad()
    def _sample(self, network: nn.Module, batch: Batch) -> Tensor:
        """Images made again from their semantics alone, (B, 3, S, S) on the CPU."""
        assert isinstance(network, CompressorAndStageB)
        device = next(network.parameters()).device
        image = shrink(batch.images.to(device))
        latent = self._encode(batch.images.to(device))
        draws = Draws(1, batch.indices, device)
        size = (latent.shape[-2], latent.shape[-1])
        text = self._encode_text(batch.captions, device)
        condition = network.stage_b.condition(network.compressor(image), text, size)
        denoise = diffusion.unguided(network.stage_b, condition)
        times = diffusion.uniform_times(LOOK_STEPS)
        *_, last = diffusion.ddpm(denoise, draws.normal(latent), times, draws.normal)
        return self._stage_a.decode(last).cpu()

    @property
    def _channels(self) -> int:
        return self._both.compressor.config.channels

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor:
        self._stage_a.to(image.device)
        latent: Tensor = self._stage_a.encode(image)
        return latent

    def _encode_text(self, captions: list[str], device: torch.device) -> Tensor:
        """(B, L, D); all zeros where Stage B reads no text, so that L alone matters."""
        if self._text is None:
            width = self._both.stage_b.config.text_width
            return torch.zeros(len(captions), self._text_length, width, device=device)
        return encode_frozen(self._text.to(device), captions)


@torch.no_grad()
def _suit_scale(stage_b: StageB) -> None:
    """Start the maps of the semantics as if these had unit scale, which they have 42 times."""
    for mapper in stage_b.semantics_mappers:
        if isinstance(mapper, nn.Conv2d):
            mapper.weight.div_(SEMANTICS_SCALE)
