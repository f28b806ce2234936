"""Training of Stage C, and of a small text encoder with it, on cached semantics (E.3).

B images, S semantic channels, h x w semantic cells, L tokens, D text width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor, nn

from wuerstchen import diffusion, weights
from wuerstchen.config import Config, StageCTraining
from wuerstchen.data import Batch, Pairs
from wuerstchen.inference.model_info import Defaults, ModelInfo, write_info
from wuerstchen.lora import add_lora, fused_copy, save_all_styles, trained_lora
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, encode_frozen, unread_text_encoder
from wuerstchen.noise import RandomStreams, streams_at
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStages
from wuerstchen.training.loss_weighting import held_out_errors, weighting
from wuerstchen.training.prior_preservation import ClassSemantics
from wuerstchen.training.stage import (
    AT_ONCE,
    GRID_COLUMNS,
    DiffusionStage,
    Loss,
    Networks,
    ParameterGroup,
    TrainState,
    device_of,
    even_times,
    held_out_batch,
    trained_parameters,
)

PRETRAINED_RATE = 0.3
"""Learning rate of a pretrained text encoder, relative to Stage C's."""


class StoredText(Protocol):
    """Text states of the training captions on disk."""

    def of(self, batch: Batch, dropped: Sequence[bool], /) -> Tensor:
        """(B, L, D); of the empty caption where the image's own is dropped."""


class TextAndStageC(nn.Module):
    """Text encoder and Stage C as one forward pass, so that both are trained together."""

    def __init__(self, text: TextEncoder, stage_c: StageC) -> None:
        super().__init__()
        self.text = text
        self.stage_c = stage_c
        self.frozen = not any(p.requires_grad for p in text.parameters())

    def forward(self, captions: Sequence[str] | Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise in (B, S, h, w) scaled semantics at (B,) times, predicted from the captions.

        captions  as text, or encoded to (B, L, D)
        """
        if isinstance(captions, Tensor):
            text = captions
        else:
            text = encode_frozen(self.text, captions) if self.frozen else self.text(captions)
        noise: Tensor = self.stage_c(noisy, t, self.stage_c.condition(text))
        return noise


@final
class StageCTrainer(DiffusionStage):
    name = "c"
    trained = "stage_c"
    training: StageCTraining

    def __init__(
        self,
        config: Config,
        frozen: FrozenStages,
        text: TextEncoder,
        stage_c: StageC,
        info: ModelInfo,
        *,
        stored_text: StoredText | None = None,
        class_semantics: ClassSemantics | None = None,
    ) -> None:
        """text: with gradients where it is trained; stored_text: text states of a frozen encoder"""
        self.training = config.stage_c.training
        self.weighting = weighting(self.training.loss_weighting)
        self._prompts, self._info = config.validation_prompts, info
        self._frozen, self._stored_text = frozen, stored_text
        self.needs_images = frozen.semantics.needs_images
        self._pretrained = config.stage_c.pretraining is not None
        stage_c.gradient_checkpointing = self.training.gradient_checkpointing
        self._class = class_semantics
        if class_semantics is not None and stored_text is not None:
            self._class_text = encode_frozen(text, [class_semantics.prompt])  # (1, L, D)
        if self.training.lora is not None:
            add_lora(stage_c, self.training.lora)
            if self.training.lora.train_text_encoder:
                add_lora(text, self.training.lora)
        self._both = TextAndStageC(text, stage_c)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_c": self._both}

    def frozen_networks(self) -> dict[str, nn.Module]:
        return self._frozen.networks()

    def parameter_groups(self, name: str) -> list[ParameterGroup]:
        """Stage C, and the text encoder: slower if pretrained, absent if frozen."""
        del name
        rate = PRETRAINED_RATE if self._pretrained else 1.0
        groups = [
            ParameterGroup(trained_parameters(self._both.stage_c), 1.0),
            ParameterGroup(trained_parameters(self._both.text), rate),
        ]
        return [group for group in groups if group.parameters]

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        del state
        device = device_of(self._both)
        scaled = self._frozen.semantics(batch, device)
        t = diffusion.training_times(streams.uniform(), self.training.high_noise_fraction)
        dropped = streams.chosen(self.training.caption_dropout).tolist()
        captions: Sequence[str] | Tensor
        if self._stored_text is not None:
            captions = self._stored_text.of(batch, dropped).to(device)
        else:
            pairs = zip(dropped, batch.captions, strict=True)
            captions = ["" if drop else caption for drop, caption in pairs]
        if self._class is None:
            error = self._error(networks["stage_c"], captions, scaled, t.to(device), streams)
            value = (self.weighting(t, error) * error).mean()
            yield Loss("stage_c", value, {"error": value})
        else:
            yield self._loss_with_class(self._class, networks, captions, scaled, t, streams)

    def _loss_with_class(
        self,
        of_class: ClassSemantics,
        networks: Networks,
        captions: Sequence[str] | Tensor,
        scaled: Tensor,
        t: Tensor,
        streams: RandomStreams,
    ) -> Loss:
        """The losses of the subject and of its class, in one forward pass."""
        count = len(scaled)
        together: Sequence[str] | Tensor
        if isinstance(captions, Tensor):
            text = self._class_text.to(captions.device).expand(count, -1, -1)
            together = torch.cat([captions, text])
        else:
            together = [*captions, *[of_class.prompt] * count]
        semantics = of_class.chosen(streams, scaled.device)
        class_t = diffusion.training_times(streams.uniform(), self.training.high_noise_fraction)
        times = torch.cat([t, class_t])
        on_device = times.to(scaled.device)
        noise = torch.cat([streams(scaled), streams(semantics)])
        noisy = diffusion.add_noise(torch.cat([scaled, semantics]), noise, on_device)
        predicted = networks["stage_c"](together, noisy, on_device)
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        subject, other = (self.weighting(times, error) * error).split(count)
        value = subject.mean() + of_class.weight * other.mean()
        return Loss("stage_c", value, {"error": subject.mean(), "class": other.mean()})

    @torch.no_grad()
    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        batch = held_out_batch(test, count)
        device = device_of(network)
        t = even_times(len(batch), device)
        images = batch.images.split(AT_ONCE)
        scaled = torch.cat([self._frozen.compress(image.to(device)) for image in images])
        error = self._error(network, batch.captions, scaled, t, streams_at(0, batch.indices))
        return held_out_errors(self.weighting, error, t)

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """What the three stages generate for the config's prompts, or for captions of the data."""
        assert isinstance(network, TextAndStageC)
        count = min(GRID_COLUMNS, len(test))
        prompts = self._prompts or [test[i].captions[0] for i in range(count)]
        device = device_of(network)
        sample = self._frozen.compress(held_out_batch(test, 1).images.to(device))
        streams = streams_at(1, range(len(prompts)))
        start = streams(sample.expand(len(prompts), -1, -1, -1))
        text = network.text([*prompts, *[""] * len(prompts)])
        both = network.stage_c.condition(text)
        prompted = network.stage_c.condition(text[: len(prompts)])
        guidance = diffusion.Guidance(Defaults().prior.guidance_scale)
        denoise = diffusion.guided(network.stage_c, both, prompted, guidance)
        *_, scaled = diffusion.ddpm(denoise, start, diffusion.published_times(), streams)
        rows = []
        for at in range(0, len(prompts), GRID_COLUMNS):
            row = prompts[at : at + GRID_COLUMNS]
            of_row = streams_at(2, range(at, at + len(row)))
            rows.append(self._frozen.decode(scaled[at : at + GRID_COLUMNS], row, of_row))
        return sample_grid(rows)

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextAndStageC)
        stage_c, text = network.stage_c, network.text
        if self.training.lora is not None:
            lora = trained_lora({"stage_c": stage_c, "text_c": text}, str(folder))
            save_all_styles(folder, lora)
            stage_c, text = fused_copy(stage_c), fused_copy(text)
        weights.stage_c.save(folder, stage_c)
        weights.text_c.save(folder, text)
        of_stage_b = self._frozen.text
        weights.text_b.save(
            folder, of_stage_b.encoder or unread_text_encoder(text, of_stage_b.width)
        )
        weights.write_index(folder)
        write_info(folder, self._info)

    def _error(
        self,
        network: nn.Module,
        captions: Sequence[str] | Tensor,
        scaled: Tensor,
        t: Tensor,
        streams: RandomStreams,
    ) -> Tensor:
        """(B,) mean squared error of the predicted noise."""
        noise = streams(scaled)
        predicted = network(captions, diffusion.add_noise(scaled, noise, t), t)
        error: Tensor = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return error
