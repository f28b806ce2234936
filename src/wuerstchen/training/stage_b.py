"""Joint training of the Semantic Compressor and Stage B on the latents of Stage A (E.2).

B images, S semantic channels, h x w semantic cells, H x W latent cells, L tokens, D text width.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Self, final

import torch
from torch import Tensor, nn

from wuerstchen import diffusion, weights
from wuerstchen.config import Config, StageBTraining
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import SEMANTICS_SCALE, scale_semantics, semantics_size, unscale_semantics
from wuerstchen.lora import add_lora, fused_copy, save_all_styles, trained_lora
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.noise import RandomStreams, streams_at
from wuerstchen.psnr import psnr_from_mse
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStageA, StageBText, decode_semantics
from wuerstchen.training.loss_weighting import held_out_errors, weighting
from wuerstchen.training.stage import (
    AT_ONCE,
    GRID_COLUMNS,
    CachedEncoder,
    DiffusionStage,
    Loss,
    Networks,
    ParameterGroup,
    Rows,
    TrainState,
    device_of,
    even_times,
    held_out_batch,
    trained_parameters,
)

SEMANTIC_NOISE_END = 0.5
"""Latest diffusion time at which training adds noise to the semantics (version 1's code)."""

PRETRAINED_RATE = 0.1
"""Learning rate of a pretrained compressor, relative to Stage B's."""


class CompressorAndStageB(nn.Module):
    """Both networks as one forward pass, so that DDP and FSDP see every gradient."""

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
        """The noise in (B, 4, H, W) `noisy`, predicted from the semantics of `image`.

        image           (B, 3, 32 h, 32 w) at the compressor's size
        semantic_noise  (B, S, h, w), added to the semantics at (B,) times semantic_t; 0: not at all
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


@final
class StageBTrainer(DiffusionStage):
    name = "b"
    trained = "stage_b"
    training: StageBTraining

    def __init__(
        self,
        config: Config,
        stage_a: StageA,
        compressor: Compressor,
        stage_b: StageB,
        text: StageBText,
        stored: Rows | None = None,
    ) -> None:
        """stored: latents of the training images on disk"""
        self.training = config.stage_b.training
        self.weighting = weighting(self.training.loss_weighting)
        self._stage_a = FrozenStageA(stage_a)
        self._latents = CachedEncoder(self._stage_a.encode, config.data.cache_gib, stored)
        self._text = text
        self._pretrained = config.stage_b.pretraining is not None
        if text.encoder is None:
            stage_b.hold_text()
        stage_b.gradient_checkpointing = self.training.gradient_checkpointing
        if self.training.lora is not None:
            add_lora(stage_b, self.training.lora)
        frozen = self.training.freeze_compressor
        self._both = CompressorAndStageB(compressor, stage_b, frozen=frozen)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_b": self._both}

    def frozen_networks(self) -> dict[str, nn.Module]:
        text = {} if self._text.encoder is None else {"text": self._text.encoder}
        return {"stage_a": self._stage_a.network, **text}

    def parameter_groups(self, name: str) -> list[ParameterGroup]:
        """Stage B; its maps of the semantics, whose input is 42 times unit scale; the compressor.

        A pretrained compressor learns at a tenth of the rate, so that an untrained Stage B does
        not spoil it.
        """
        del name
        mappers = trained_parameters(self._both.stage_b.semantics_mappers)
        known = {id(parameter) for parameter in mappers}
        others = [p for p in trained_parameters(self._both.stage_b) if id(p) not in known]
        rate = PRETRAINED_RATE if self._pretrained else 1.0
        groups = [
            ParameterGroup(others, 1.0),
            ParameterGroup(mappers, 1 / SEMANTICS_SCALE),
            ParameterGroup(trained_parameters(self._both.compressor), rate),
        ]
        return [group for group in groups if group.parameters]

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        del state
        device = device_of(self._both)
        t = diffusion.training_times(streams.uniform(), self.training.high_noise_fraction)
        noised = streams.chosen(self.training.semantics_noise)
        semantic_t = (streams.uniform() * SEMANTIC_NOISE_END * noised).to(device)
        dropped = streams.chosen(self.training.semantics_dropout).view(-1, 1, 1, 1).to(device)
        latent = self._latents(batch, device)
        both, on_device = networks["stage_b"], t.to(device)
        error = self._error(both, batch, latent, on_device, semantic_t, dropped, streams)
        value = (self.weighting(t, error) * error).mean()
        yield Loss("stage_b", value, {"error": value})

    @torch.no_grad()
    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        whole = held_out_batch(test, count)
        device = device_of(network)
        times = even_times(len(whole), device)
        errors, squares = [], []
        for start, batch in whole.split(math.ceil(len(whole) / AT_ONCE)):
            streams = streams_at(0, batch.indices)
            t = times[start : start + len(batch)]
            clear = torch.zeros_like(t)
            keep = clear.bool().view(-1, 1, 1, 1)
            latent = self._stage_a.encode(batch.images.to(device))
            errors.append(self._error(network, batch, latent, t, clear, keep, streams))
            image = self._sample(network, batch)
            squares.append((image - batch.images).square().mean(dim=(1, 2, 3)))
        return {
            **held_out_errors(self.weighting, torch.cat(errors), times),
            "psnr": float(psnr_from_mse(torch.cat(squares)).mean()),
        }

    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals, Stage A alone, and what Stage B makes of the semantics."""
        batch = held_out_batch(test, GRID_COLUMNS)
        latent = self._stage_a.encode(batch.images.to(device_of(network)))
        rows = [batch.images, self._stage_a.decode(latent), self._sample(network, batch)]
        return sample_grid(rows)

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, CompressorAndStageB)
        weights.compressor.save(folder, network.compressor)
        stage_b = network.stage_b
        if self.training.lora is not None:
            save_all_styles(folder, trained_lora({"stage_b": stage_b}, str(folder)))
            stage_b = fused_copy(stage_b)
        weights.stage_b.save(folder, stage_b)

    def _error(
        self,
        network: nn.Module,
        batch: Batch,
        latent: Tensor,
        t: Tensor,
        semantic_t: Tensor,
        dropped: Tensor,
        streams: RandomStreams,
    ) -> Tensor:
        """(B,) mean squared error of the predicted noise."""
        noise = streams(latent)
        cells = semantics_size(*batch.images.shape[-2:])
        predicted = network(
            shrink(batch.images.to(t.device)),
            diffusion.add_noise(latent, noise, t),
            t,
            self._text(batch.captions, t.device),
            streams.normal((self._both.compressor.config.channels, *cells), t.device),
            semantic_t,
            dropped,
        )
        error: Tensor = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return error

    @torch.no_grad()
    def _sample(self, network: nn.Module, batch: Batch) -> Tensor:
        """Images reconstructed from their semantics alone, (B, 3, S, S) on the CPU."""
        assert isinstance(network, CompressorAndStageB)
        device = device_of(network)
        semantics = network.compressor(shrink(batch.images.to(device)))
        text = self._text(batch.captions, device)
        streams = streams_at(1, batch.indices)
        return decode_semantics(semantics, text, network.stage_b, self._stage_a, streams)
