"""Training of Stage C, and of a small text encoder with it, on cached semantics (E.3).

B pictures, S semantic channels, h x w semantic cells, L tokens, D text width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wuerstchen import diffusion, weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import (
    SEMANTICS_SCALE,
    SEMANTICS_SHIFT,
    latent_size_of_semantics,
)
from wuerstchen.model_folder import ModelInfo, write_info
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.training.pictures import picture_grid
from wuerstchen.training.stage import (
    PEEK,
    Cache,
    Draws,
    Loss,
    Networks,
    Stage,
    even_times,
    held_out_batch,
)
from wuerstchen.training.stage_b import LOOK_STEPS

GUIDANCE = 4.0
"""Guidance of the pictures in a grid, the pipeline's default."""


class TextAndStageC(nn.Module):
    """Text encoder and Stage C as one forward pass, so that both are trained together."""

    def __init__(self, text: TextEncoder, stage_c: StageC) -> None:
        super().__init__()
        self.text = text
        self.stage_c = stage_c
        self.frozen = not any(p.requires_grad for p in text.parameters())

    def forward(self, captions: Sequence[str], noisy: Tensor, t: Tensor) -> Tensor:
        """The noise in (B, S, h, w) scaled semantics at (B,) times, told from the captions."""
        text = encode_frozen(self.text, captions) if self.frozen else self.text(captions)
        noise: Tensor = self.stage_c(noisy, t, self.stage_c.condition(text))
        return noise


class StageCTrainer(Stage):
    name = "c"
    trained = "stage_c"

    def __init__(
        self,
        config: Config,
        stage_a: StageA,
        stage_b: StageB,
        compressor: Compressor,
        text: TextEncoder,
        text_b: TextEncoder | None,
    ) -> None:
        """text has gradients where it is to be trained; text_b is Stage B's own, if it has one."""
        self.training = self.recipe = config.stage_c.training
        self._weight = diffusion.LOSS_WEIGHTS[self.recipe.weight]
        self._prompts = config.prompts
        self._info = ModelInfo(name=config.name, size=config.data.size)
        self._stage_a = stage_a.eval().requires_grad_(False)
        self._stage_b = stage_b.eval().requires_grad_(False)
        self._text_b = text_b
        self._compressor = compressor.eval().requires_grad_(False)
        self._semantics = Cache(self._compress, config.data.memory)
        if self.recipe.start:
            stage_c = weights.load_stage_c(Path(self.recipe.start))
        else:
            stage_c = StageC(config.stage_c.model)
        if self.recipe.head == "difference":
            stage_c.hold_divisor()
        stage_c.gradient_checkpointing = self.recipe.gradient_checkpointing
        self._both = TextAndStageC(text, stage_c)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_c": self._both}

    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        scaled = self._semantics(batch, draws.device)
        t = diffusion.training_times(draws.uniform())
        dropped = draws.chosen(self.recipe.text_drop).flatten().tolist()
        captions = [
            "" if drop else text for drop, text in zip(dropped, batch.captions, strict=True)
        ]
        error = self._error(networks["stage_c"], captions, scaled, t, draws)
        value = (self._weight(t) * error).mean()
        yield Loss("stage_c", value, {"error": value})

    @torch.no_grad()
    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        batch = held_out_batch(test, count)
        device = next(network.parameters()).device
        t = even_times(len(batch), device)
        scaled = self._compress(batch.images.to(device))
        error = self._error(network, batch.captions, scaled, t, Draws(0, batch.indices, device))
        return {"held_out": float((self._weight(t) * error).mean())}

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """What the three stages draw for the config's prompts, or for captions of the data."""
        assert isinstance(network, TextAndStageC)
        prompts = self._prompts or [test[i].captions[0] for i in range(min(PEEK, len(test)))]
        device = next(network.parameters()).device
        sample = self._compress(held_out_batch(test, 1).images.to(device))
        draws = Draws(1, range(len(prompts)), device)
        start = draws.normal(sample.expand(len(prompts), -1, -1, -1))
        text = network.text([*prompts, *[""] * len(prompts)])
        condition = network.stage_c.condition(text)
        denoise = diffusion.guided(network.stage_c, condition, GUIDANCE)
        *_, scaled = diffusion.ddpm(denoise, start, diffusion.published_times(), draws.normal)
        images = self._picture(scaled * SEMANTICS_SCALE - SEMANTICS_SHIFT, prompts, draws)
        return picture_grid(images.split(PEEK) if len(images) % PEEK == 0 else [images])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextAndStageC)
        weights.save_stage_c(folder, network.stage_c)
        weights.save_text_encoder(folder, network.text, "c")
        weights.save_text_encoder(folder, self._text_b or network.text, "b")
        weights.finish_folder(folder)
        write_info(folder, self._info)

    def _error(
        self, network: nn.Module, captions: Sequence[str], scaled: Tensor, t: Tensor, draws: Draws
    ) -> Tensor:
        """(B,) mean squared error of the predicted noise."""
        noise = draws.normal(scaled)
        predicted = network(captions, diffusion.add_noise(scaled, noise, t), t)
        error: Tensor = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return error

    def _picture(self, semantics: Tensor, prompts: Sequence[str], draws: Draws) -> Tensor:
        """(B, 3, H, W) pictures on the CPU for unscaled semantics."""
        device = semantics.device
        size = latent_size_of_semantics(semantics.shape[-2], semantics.shape[-1])
        if self._text_b is None:
            length = self._both.text.length
            text = torch.zeros(len(prompts), length, self._stage_b.config.text_width, device=device)
        else:
            text = self._text_b.to(device)(prompts)
        stage_b = self._stage_b.to(device)
        denoise = diffusion.unguided(stage_b, stage_b.condition(semantics, text, size))
        start = draws.normal(torch.empty(len(prompts), 4, *size))
        *_, latent = diffusion.ddpm(
            denoise, start, diffusion.uniform_times(LOOK_STEPS), draws.normal
        )
        return self._stage_a.to(device).decode(latent).cpu()

    @torch.no_grad()
    def _compress(self, image: Tensor) -> Tensor:
        """Scaled semantics of pictures: what Stage C diffuses."""
        semantics: Tensor = self._compressor.to(image.device)(shrink(image))
        return (semantics + SEMANTICS_SHIFT) / SEMANTICS_SCALE
