"""The trainings of the compressor and of Stage B as outlines."""

from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import diffusion
from wuerstchen.config import CompressorPretraining, Config, StageBTraining
from wuerstchen.geometry import latent_size, semantics_size
from wuerstchen.lora import add_lora
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.pretrain_heads import LatentHead
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.text import encode_frozen
from wuerstchen.planning.images import Images
from wuerstchen.planning.networks import META, text_of_stage_b
from wuerstchen.planning.outline import Outline, Work, empty
from wuerstchen.training.pretrain_compressor import CompressorAndHead
from wuerstchen.training.stage_b import CompressorAndStageB


@final
class CompressorPretrainingOutline(Outline):
    name, averaged = "b-pretraining", "compressor"

    def __init__(self, config: Config, recipe: CompressorPretraining) -> None:
        self.recipe = recipe
        self._images = Images(config)
        # This step does not look for encodings.
        self._images.encoded = False
        with META:
            compressor = Compressor(config.compressor)
            sketch = LatentHead(config.compressor.channels, recipe.width, recipe.depth)
            self._both = CompressorAndHead(compressor, sketch)

    def networks(self) -> dict[str, nn.Module]:
        return {"compressor": self._both}

    def helpers(self) -> dict[str, nn.Module]:
        return {"stage_a": self._images.stage_a}

    def losses(self, work: Work, micro: int, *, late: bool = True) -> Iterator[Tensor]:
        del late
        side = self._images.side
        images = empty(micro, 3, side, side)
        latent = self._images.latents(work, images)
        small = shrink(images)
        with work.learning():
            redrawn = self._both(small, latent_size(side, side))
        yield F.mse_loss(redrawn.float(), latent)


@final
class StageBOutline(Outline):
    name, averaged = "b", "stage_b"

    def __init__(self, config: Config) -> None:
        self.recipe: StageBTraining = config.stage_b.training
        self._images = Images(config)
        self._text = text_of_stage_b(config)
        self._tokens = (config.text.max_length, config.stage_b.model.text_width)
        with META:
            compressor, stage_b = Compressor(config.compressor), StageB(config.stage_b.model)
            if self._text is None:
                stage_b.hold_text()
            if self.recipe.lora is not None:
                add_lora(stage_b, self.recipe.lora)
        stage_b.gradient_checkpointing = self.recipe.gradient_checkpointing
        frozen = self.recipe.freeze_compressor
        self._both = CompressorAndStageB(compressor, stage_b, frozen=frozen)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_b": self._both}

    def helpers(self) -> dict[str, nn.Module]:
        text = {} if self._text is None else {"text": self._text}
        return {"stage_a": self._images.stage_a, **text}

    def losses(self, work: Work, micro: int, *, late: bool = True) -> Iterator[Tensor]:
        del late
        side = self._images.side
        images, t = empty(micro, 3, side, side), empty(micro)
        latent = self._images.latents(work, images)
        noise = torch.empty_like(latent)
        small = shrink(images)
        cells = empty(micro, self._images.channels, *semantics_size(side, side))
        noisy = diffusion.add_noise(latent, noise, t)
        text = self._encode_text(work, micro)
        dropped = torch.empty(micro, 1, 1, 1, dtype=torch.bool, device=META)
        with work.learning():
            predicted = self._both(small, noisy, t, text, cells, empty(micro), dropped)
        yield (predicted.float() - noise).square().mean(dim=(1, 2, 3)).mean()

    def _encode_text(self, work: Work, micro: int) -> Tensor:
        if self._text is None:
            return empty(micro, *self._tokens)
        with work.frozen():
            return encode_frozen(self._text, [""] * micro)
