"""Training of Stage C, and of a small text encoder with it, on cached semantics (E.3).

B images, S semantic channels, h x w semantic cells, L tokens, D text width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wuerstchen import diffusion, weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.inference.model_info import Defaults, ModelInfo, read_info, write_info
from wuerstchen.lora import add_lora, fused_copy, save_all_styles, trained_lora
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStages
from wuerstchen.training.latent_cache import TextStates
from wuerstchen.training.loss_weighting import held_out_errors, weighting
from wuerstchen.training.prior_preservation import Preserved, draw_preserved
from wuerstchen.training.stage import (
    AT_ONCE,
    PEEK,
    Draws,
    Loss,
    Networks,
    ParameterGroup,
    Stage,
    even_times,
    held_out_batch,
)
from wuerstchen.weights.hub import find

PRETRAINED_RATE = 0.3
"""Learning rate of a text encoder that pretrained, relative to Stage C's."""


class TextAndStageC(nn.Module):
    """Text encoder and Stage C as one forward pass, so that both are trained together."""

    def __init__(self, text: TextEncoder, stage_c: StageC) -> None:
        super().__init__()
        self.text = text
        self.stage_c = stage_c
        self.frozen = not any(p.requires_grad for p in text.parameters())

    def forward(self, captions: Sequence[str] | Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise in (B, S, h, w) scaled semantics at (B,) times, told from the captions.

        captions  as text, or already encoded to (B, L, D)
        """
        if isinstance(captions, Tensor):
            text = captions
        else:
            text = encode_frozen(self.text, captions) if self.frozen else self.text(captions)
        noise: Tensor = self.stage_c(noisy, t, self.stage_c.condition(text))
        return noise


class StageCTrainer(Stage):
    name = "c"
    trained = "stage_c"

    def __init__(
        self,
        config: Config,
        below: FrozenStages,
        text: TextEncoder,
        states: TextStates | None = None,
    ) -> None:
        """
        below   the finished stages, whose semantics are learned and which draw the looks
        text    the encoder, with gradients where it is to be trained
        states  what a frozen encoder made of the training captions, on the disk
        """
        self.training = self.recipe = config.stage_c.training
        self._weight = weighting(self.recipe.loss_weighting)
        self._prompts = config.validation_prompts
        self._info = info_for(config, self.recipe.init_from)
        self._below, self._states = below, states
        self.needs_images = below.encoded is None
        self._pretrained = config.stage_c.pretraining is not None
        if self.recipe.init_from:
            stage_c = weights.stage_c.load(find(self.recipe.init_from))
        else:
            stage_c = StageC(config.stage_c.model)
        if self.recipe.head == "difference":
            stage_c.hold_divisor()
        stage_c.gradient_checkpointing = self.recipe.gradient_checkpointing
        self._preserved: Preserved | None = None
        if self.recipe.prior_preservation is not None:
            self._preserved = draw_preserved(
                self.recipe.prior_preservation, stage_c, text, config.data.size, config.seed
            )
        if self.recipe.lora is not None:
            add_lora(stage_c, self.recipe.lora)
            if self.recipe.lora.train_text_encoder:
                add_lora(text, self.recipe.lora)
        self._both = TextAndStageC(text, stage_c)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_c": self._both}

    def parameter_groups(self, name: str) -> list[ParameterGroup]:
        """Stage C, and the text encoder: slower when it pretrained, absent when it is frozen."""
        del name
        groups = [
            ParameterGroup([p for p in self._both.stage_c.parameters() if p.requires_grad], 1.0),
            ParameterGroup(
                [p for p in self._both.text.parameters() if p.requires_grad],
                PRETRAINED_RATE if self._pretrained else 1.0,
            ),
        ]
        return [group for group in groups if group.parameters]

    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        scaled = self._below.semantics(batch, draws.device)
        t = diffusion.training_times(draws.uniform(), self.recipe.high_noise_fraction)
        dropped = draws.chosen(self.recipe.caption_dropout).flatten().tolist()
        captions: Sequence[str] | Tensor
        if self._states is not None:
            captions = self._states.of(batch, dropped).to(draws.device)
        else:
            captions = [
                "" if drop else text for drop, text in zip(dropped, batch.captions, strict=True)
            ]
        if self._preserved is None:
            error = self._error(networks["stage_c"], captions, scaled, t, draws)
            value = (self._weight(t, error) * error).mean()
            yield Loss("stage_c", value, {"error": value})
        else:
            yield self._beside_class(self._preserved, networks, captions, scaled, t, draws)

    def _beside_class(
        self,
        preserved: Preserved,
        networks: Networks,
        captions: Sequence[str] | Tensor,
        scaled: Tensor,
        t: Tensor,
        draws: Draws,
    ) -> Loss:
        """The subject's loss and that of its class, in one forward pass."""
        count = len(scaled)
        together: Sequence[str] | Tensor
        if isinstance(captions, Tensor):
            states = encode_frozen(self._both.text.to(draws.device), [preserved.caption])
            together = torch.cat([captions, states.expand(count, -1, -1)])
        else:
            together = [*captions, *[preserved.caption] * count]
        kept = preserved.chosen(draws)
        times = torch.cat(
            [t, diffusion.training_times(draws.uniform(), self.recipe.high_noise_fraction)]
        )
        noise = torch.cat([draws.normal(scaled), draws.normal(kept)])
        noisy = diffusion.add_noise(torch.cat([scaled, kept]), noise, times)
        predicted = networks["stage_c"](together, noisy, times)
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        subject, before = (self._weight(times, error) * error).split(count)
        value = subject.mean() + preserved.weight * before.mean()
        return Loss("stage_c", value, {"error": subject.mean(), "class": before.mean()})

    def memory(self) -> dict[str, Tensor]:
        return self._weight.memory()

    def before_step(self) -> None:
        self._weight.before_step()

    def after_step(self) -> dict[str, float]:
        return self._weight.after_step()

    @torch.no_grad()
    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        batch = held_out_batch(test, count)
        device = next(network.parameters()).device
        t = even_times(len(batch), device)
        parts = batch.images.split(AT_ONCE)
        scaled = torch.cat([self._below.compress(part.to(device)) for part in parts])
        error = self._error(network, batch.captions, scaled, t, Draws(0, batch.indices, device))
        return held_out_errors(self._weight, error, t)

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """What the three stages draw for the config's prompts, or for captions of the data."""
        assert isinstance(network, TextAndStageC)
        prompts = self._prompts or [test[i].captions[0] for i in range(min(PEEK, len(test)))]
        device = next(network.parameters()).device
        sample = self._below.compress(held_out_batch(test, 1).images.to(device))
        draws = Draws(1, range(len(prompts)), device)
        start = draws.normal(sample.expand(len(prompts), -1, -1, -1))
        text = network.text([*prompts, *[""] * len(prompts)])
        both = network.stage_c.condition(text)
        wanted = network.stage_c.condition(text[: len(prompts)])
        denoise = diffusion.guided(
            network.stage_c, both, wanted, diffusion.Guidance(Defaults().prior.guidance_scale)
        )
        *_, scaled = diffusion.ddpm(denoise, start, diffusion.published_times(), draws.normal)
        rows = []
        for at in range(0, len(prompts), PEEK):
            asked = prompts[at : at + PEEK]
            part = Draws(2, range(at, at + len(asked)), device)
            rows.append(self._below.decode(scaled[at : at + PEEK], asked, part))
        return sample_grid(rows)

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextAndStageC)
        stage_c, text = network.stage_c, network.text
        if self.recipe.lora is not None:
            lora = trained_lora({"stage_c": stage_c, "text_c": text}, str(folder))
            save_all_styles(folder, lora)
            stage_c, text = fused_copy(stage_c), fused_copy(text)
        weights.stage_c.save(folder, stage_c)
        weights.text_c.save(folder, text)
        weights.text_b.save(folder, self._below.text or text)
        weights.write_index(folder)
        write_info(folder, self._info)

    def _error(
        self,
        network: nn.Module,
        captions: Sequence[str] | Tensor,
        scaled: Tensor,
        t: Tensor,
        draws: Draws,
    ) -> Tensor:
        """(B,) mean squared error of the predicted noise."""
        noise = draws.normal(scaled)
        predicted = network(captions, diffusion.add_noise(scaled, noise, t), t)
        error: Tensor = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return error


def info_for(config: Config, start: str) -> ModelInfo:
    """What the model says of itself; settings that suited the model it starts from still do."""
    info = read_info(find(start), config.name) if start else ModelInfo()
    return info.model_copy(update={"name": config.name, "size": config.data.size})
