"""Training of Stage A: reconstruction, codebook, perceptual and adversarial loss (E.1).

B images, S crop side, K codes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import StageAConfig
from wuerstchen.data import Batch, Pairs
from wuerstchen.evaluation.metrics import psnr_from_mse
from wuerstchen.lora import add_lora, fused_copy
from wuerstchen.models.discriminator import Discriminator
from wuerstchen.models.stage_a import Quantised, StageA
from wuerstchen.training.crops import random_crop, sample_grid
from wuerstchen.training.distributed import all_gather, all_reduce_max
from wuerstchen.training.perceptual import perceptual_loss
from wuerstchen.training.stage import AT_ONCE, PEEK, Draws, Loss, Networks, Stage, held_out_batch
from wuerstchen.weights.hub import find

SETTLING = 20
"""Optimizer steps without a codebook, after which its codes are placed on latents."""

MEASURED = 256
"""Training images on which the spread of the latents is measured."""


class Reconstruction(NamedTuple):
    image: Tensor
    quantised: Quantised
    latent: Tensor


class Autoencoder(nn.Module):
    """Stage A as one forward pass, so that gradients are shared among devices as usual."""

    last_used: Tensor

    def __init__(self, network: StageA) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("last_used", torch.zeros(network.config.codebook, dtype=torch.int64))

    def train(self, mode: bool = True) -> Self:
        """Beside a LoRA the statistics of the BatchNorm stay: it does not change them."""
        super().train(mode)
        norms = (module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d))
        for norm in norms:
            norm.train(mode and all(p.requires_grad for p in norm.parameters()))
        return self

    def forward(self, image: Tensor, skip: Tensor) -> Reconstruction:
        """Reconstruct (B, 3, S, S); images chosen by `skip` (B, 1, 1, 1) pass no codebook."""
        latent = self.network.raw_latent(image)
        quantised = self.network.codebook(latent)
        decoded = self.network.raw_image(torch.where(skip, latent, quantised.latent))
        return Reconstruction(decoded, quantised, latent)


class StageATrainer(Stage):
    name = "a"
    trained = "stage_a"

    def __init__(self, config: StageAConfig, train: Pairs) -> None:
        self.training = self.recipe = config.training
        self._train = train
        if config.training.init_from:
            network = weights.stage_a.load(find(config.training.init_from))
        else:
            network = StageA(config.model)
        if config.training.lora is not None:
            add_lora(network, config.training.lora)
        # A start has its codes where its latents are.
        self._settling = 0 if config.training.init_from else SETTLING
        self._autoencoder = Autoencoder(network)
        self._discriminator = Discriminator(
            config.training.discriminator_width, config.training.discriminator_depth
        )
        self._perceptual = perceptual_loss(config.training)
        self._points = torch.empty(0)  # (N, 4) latents of the last batch

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_a": self._autoencoder, "discriminator": self._discriminator}

    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        image = random_crop(batch.images.to(draws.device), self.recipe.crop_size, draws)
        settled = self.step >= self._settling
        skip = draws.chosen(self.recipe.quantise_dropout if settled else 1.0)
        out: Reconstruction = networks["stage_a"](image, skip)
        error = F.mse_loss(out.image, image)
        perceptual = self._perceptual(out.image, image)
        value = error + self.recipe.perceptual_weight * perceptual
        # Without its share in the loss, processes would wait for the codebook's gradient for ever.
        value = value + self.recipe.codebook_weight * settled * out.quantised.codebook_loss
        if settled:
            value = value + self.recipe.commitment_weight * out.quantised.commitment_loss
        scalars = {"error": error, "perceptual": perceptual}
        scalars["codebook"] = out.quantised.codebook_loss
        scalars["perplexity"] = perplexity(out.quantised.codes, len(self._autoencoder.last_used))
        judged = self._discriminator_joined()
        if judged:
            adversarial = -self._judge_frozen(out.image).mean()
            value = value + self.recipe.adversarial_weight * adversarial
            scalars["adversarial"] = adversarial
        self._note_codes(out)
        yield Loss("stage_a", value, scalars)
        if not settled:  # zeros would already turn the optimizer's wheels
            self._autoencoder.network.codebook.embedding.weight.grad = None
        if judged:
            yield self._discriminator_loss(networks["discriminator"], image, out.image.detach())

    @torch.no_grad()
    def after_step(self) -> dict[str, float]:
        """Place the codes on latents once these have settled; later, revive codes without use."""
        if self.step < self._settling or self.recipe.lora is not None:
            return {}
        last_used = all_reduce_max(self._autoencoder.last_used)
        unused = self.step - last_used > self.recipe.code_reset_after
        if self.step == self._settling:  # never, after a start
            unused = torch.ones_like(unused)
        dead = unused.nonzero().flatten()
        if len(dead) == 0:
            return {"revived": 0.0}
        points = all_gather(self._points)
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(self.step))
        dead = dead[: len(points)]
        self._autoencoder.network.codebook.embedding.weight[dead] = points[order[: len(dead)]]
        last_used[dead] = self.step
        return {"revived": float(len(dead))}

    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        batch = held_out_batch(test, count)
        plain: list[Tensor] = []
        quantised: list[Tensor] = []
        for image in batch.images.split(AT_ONCE):
            for skip, squares in ((True, plain), (False, quantised)):
                made = self._reconstruct(network, image, skip).image.clamp(0, 1)
                squares.append((made - image.to(made)).square().mean(dim=(1, 2, 3)))
        return {
            "held_out": float(torch.cat(plain).mean()),
            "psnr": float(psnr_from_mse(torch.cat(plain)).mean()),
            "psnr_quantised": float(psnr_from_mse(torch.cat(quantised)).mean()),
        }

    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals above reconstructions."""
        image = held_out_batch(test, PEEK).images
        return sample_grid([image, self._reconstruct(network, image, skip=True).image.cpu()])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, Autoencoder)
        exported = network.network
        if self.recipe.lora is not None:
            exported = fused_copy(exported)
        if not self.recipe.init_from:  # a Stage B that knows the start's latents knows their scale
            exported.config = exported.config.model_copy(update={"scale": self._spread(exported)})
        weights.stage_a.save(folder, exported)

    @torch.no_grad()
    def _spread(self, network: StageA) -> float:
        """Standard deviation of the latents: divided by it, they suit Stage B's unit noise."""
        image = held_out_batch(self._train, MEASURED).images
        device = next(network.parameters()).device
        latents = [network.raw_latent(part.to(device)) for part in image.split(AT_ONCE)]
        return float(torch.cat(latents).std())

    def _discriminator_joined(self) -> bool:
        joined = self.images >= self.recipe.adversarial_start
        return self.recipe.adversarial_weight > 0 and joined

    def _judge_frozen(self, image: Tensor) -> Tensor:
        """The discriminator's opinion, with gradients for the image alone."""
        self._discriminator.requires_grad_(False)
        logits: Tensor = self._discriminator(image)
        self._discriminator.requires_grad_(True)
        return logits

    def _discriminator_loss(self, discriminator: nn.Module, real: Tensor, made: Tensor) -> Loss:
        """Hinge loss (arXiv:1705.02894, section 4), as in the VQGAN paper's code."""
        real_logit, made_logit = discriminator(torch.cat([real, made])).chunk(2)
        value = (F.relu(1 - real_logit).mean() + F.relu(1 + made_logit).mean()) / 2
        return Loss("discriminator", value, {"discriminator": value})

    @torch.no_grad()
    def _note_codes(self, out: Reconstruction) -> None:
        self._points = out.latent.detach().float().permute(0, 2, 3, 1).reshape(-1, 4)
        self._autoencoder.last_used[out.quantised.codes.unique()] = self.step

    @torch.no_grad()
    def _reconstruct(self, network: nn.Module, image: Tensor, skip: bool) -> Reconstruction:
        device = next(network.parameters()).device
        choice = torch.full((len(image), 1, 1, 1), skip, device=device)
        out: Reconstruction = network(image.to(device), choice)
        return out


def perplexity(codes: Tensor, size: int) -> Tensor:
    """How many codes are in use, were all used equally often: exp of the entropy, 1 to `size`."""
    share = codes.flatten().bincount(minlength=size).float() / codes.numel()
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy.exp()
