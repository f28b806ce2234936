"""Stage A's training as an outline."""

from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.config import Config, StageATraining
from wuerstchen.lora import add_lora
from wuerstchen.models.discriminator import Discriminator
from wuerstchen.models.stage_a import StageA
from wuerstchen.planning.networks import META, Vgg16Outline
from wuerstchen.planning.outline import Outline, Work, empty
from wuerstchen.training.perceptual import pyramid_loss
from wuerstchen.training.stage_a import Autoencoder


@final
class StageAOutline(Outline):
    name, averaged = "a", "stage_a"

    def __init__(self, config: Config) -> None:
        self.recipe: StageATraining = config.stage_a.training
        self._side = config.data.size
        with META:
            network = StageA(config.stage_a.model)
            if self.recipe.lora is not None:
                add_lora(network, self.recipe.lora)
            self._autoencoder = Autoencoder(network)
            self._discriminator = Discriminator(
                self.recipe.discriminator_width, self.recipe.discriminator_depth
            )
            self._vgg = Vgg16Outline() if self.recipe.perceptual_loss == "vgg16" else None
        self.late = 0.0
        if self.recipe.adversarial_weight > 0 and self.recipe.images > 0:
            self.late = max(0.0, 1 - self.recipe.adversarial_start / self.recipe.images)

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_a": self._autoencoder, "discriminator": self._discriminator}

    def helpers(self) -> dict[str, nn.Module]:
        return {} if self._vgg is None else {"vgg16": self._vgg}

    def losses(self, work: Work, micro: int, *, late: bool = True) -> Iterator[Tensor]:
        judged = late and self.late > 0
        images = empty(micro, 3, self._side, self._side)
        crop = self.recipe.crop_size
        image = torch.stack([each[:, :crop, :crop] for each in images])
        skip = torch.empty(micro, 1, 1, 1, dtype=torch.bool, device=META)
        with work.learning():
            out = self._autoencoder(image, skip)
        made = out.image.float()
        perceptual = (pyramid_loss if self._vgg is None else self._vgg)(made, image)
        value = F.mse_loss(made, image) + self.recipe.perceptual_weight * perceptual
        value = value + out.quantised.codebook_loss + out.quantised.commitment_loss
        if judged:
            self._discriminator.requires_grad_(False)
            value = value - self._discriminator(made).mean()
            self._discriminator.requires_grad_(True)
        yield value
        if judged:
            with work.learning():
                logits = self._discriminator(torch.cat([image, made.detach()]))
            real, false = logits.float().chunk(2)
            yield F.relu(1 - real).mean() + F.relu(1 + false).mean()
