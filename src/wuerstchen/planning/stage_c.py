"""The trainings of the text encoder and of Stage C as outlines."""

from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import diffusion
from wuerstchen.config import Config, StageCTraining, TextPretraining
from wuerstchen.geometry import semantics_size
from wuerstchen.lora import add_lora
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.pretrain_heads import SemanticsHead
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.planning.images import Images
from wuerstchen.planning.networks import (
    META,
    small_text,
    text_encoder,
    text_of_stage_b,
    text_of_stage_c,
)
from wuerstchen.planning.outline import Outline, Work, empty
from wuerstchen.training.pretrain_text import TextAndHead
from wuerstchen.training.stage_c import TextAndStageC


class _Below:
    """The finished stages below Stage C. Looks draw with all of them, and leave them there."""

    def __init__(self, config: Config) -> None:
        self.images = Images(config)
        text = text_of_stage_b(config)
        with META:
            self.compressor = Compressor(config.compressor).eval().requires_grad_(False)
            stage_b = StageB(config.stage_b.model).requires_grad_(False)
        self.helpers: dict[str, nn.Module] = {
            "compressor": self.compressor,
            "stage_b": stage_b,
            "stage_a": self.images.stage_a,
            **({} if text is None else {"text of Stage B": text}),
        }

    def semantics(self, work: Work, micro: int) -> Tensor:
        return self.images.semantics(work, micro, self.compressor)


@final
class TextPretrainingOutline(Outline):
    name, averaged = "c-pretraining", "text"

    def __init__(self, config: Config, recipe: TextPretraining) -> None:
        self.recipe = recipe
        self._below = _Below(config)
        text = text_encoder(small_text(config.text))
        cells = semantics_size(config.data.size, config.data.size)
        with META:
            shape = (config.stage_c.model.semantic_channels, *cells)
            self._both = TextAndHead(text, SemanticsHead(text.width, recipe.width, shape))

    def networks(self) -> dict[str, nn.Module]:
        return {"text": self._both}

    def helpers(self) -> dict[str, nn.Module]:
        return self._below.helpers

    def losses(self, work: Work, micro: int, *, late: bool = True) -> Iterator[Tensor]:
        del late
        with work.learning():
            guess = self._both([""] * micro)
        yield F.mse_loss(guess.float(), self._below.semantics(work, micro))


@final
class StageCOutline(Outline):
    name, averaged = "c", "stage_c"

    def __init__(self, config: Config) -> None:
        self.recipe: StageCTraining = config.stage_c.training
        self._below = _Below(config)
        self._text = text_of_stage_c(config)
        self._tokens = (self._text.length, self._text.width)
        cells = semantics_size(config.data.size, config.data.size)
        self._cells = (config.stage_c.model.semantic_channels, *cells)
        # Only what a published encoder makes of captions is encoded ahead.
        self._encoded = self._below.images.encoded and bool(config.text.pretrained)
        with META:
            stage_c = StageC(config.stage_c.model)
            if self.recipe.head == "difference":
                stage_c.hold_divisor()
            if self.recipe.lora is not None:
                add_lora(stage_c, self.recipe.lora)
                if self.recipe.lora.train_text_encoder:
                    add_lora(self._text, self.recipe.lora)
        stage_c.gradient_checkpointing = self.recipe.gradient_checkpointing
        self._both = TextAndStageC(self._text, stage_c)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_c": self._both}

    def helpers(self) -> dict[str, nn.Module]:
        return self._below.helpers

    def losses(self, work: Work, micro: int, *, late: bool = True) -> Iterator[Tensor]:
        del late
        scaled = self._below.semantics(work, micro)
        if self.recipe.prior_preservation is not None:  # one of the class with every image
            scaled = torch.cat([scaled, torch.empty_like(scaled)])
        noise, t = torch.empty_like(scaled), empty(len(scaled))
        captions: list[str] | Tensor = [""] * len(scaled)
        if self._both.frozen:
            captions = self._encode_text(work, self._text, len(scaled))
        noisy = diffusion.add_noise(scaled, noise, t)
        with work.learning():
            predicted = self._both(captions, noisy, t)
        yield (predicted.float() - noise).square().mean(dim=(1, 2, 3)).mean()

    def once(self, work: Work) -> Iterator[int]:
        """What the base draws of a subject's class, as `training/prior_preservation.py` does.

        Its caption is left out: it is encoded a single time.
        """
        if self.recipe.prior_preservation is None:
            return
        drawn, steps = (
            self.recipe.prior_preservation.class_images,
            len(diffusion.published_times()) - 1,
        )
        stage_c = self._both.stage_c.eval()
        with work.frozen():
            condition = stage_c.condition(empty(2, *self._tokens))  # wanted and unwanted
        yield drawn
        with work.frozen():
            stage_c(empty(2, *self._cells), empty(2), condition)
        yield drawn * steps

    def _encode_text(self, work: Work, text: TextEncoder, count: int) -> Tensor:
        """Within the network, so in its numbers; but counted as what it is, a frozen part."""
        if self._encoded:
            return empty(count, *self._tokens)
        with work.frozen(autocast=True):
            return encode_frozen(text, [""] * count)
