"""Training of Stage A: reconstruction, codebook, perceptual and adversarial loss (E.1).

B images, S crop side, K codes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import StageAConfig, StageATraining
from wuerstchen.data import Batch, Pairs
from wuerstchen.lora import add_lora, fused_copy
from wuerstchen.models.discriminator import Discriminator
from wuerstchen.models.stage_a import Quantised, StageA
from wuerstchen.noise import RandomStreams
from wuerstchen.psnr import psnr_from_mse
from wuerstchen.training.crops import random_crop, sample_grid
from wuerstchen.training.distributed import all_gather, all_reduce_max
from wuerstchen.training.perceptual import Perceptual
from wuerstchen.training.stage import (
    AT_ONCE,
    GRID_COLUMNS,
    STEADY_STEP,
    Loss,
    Networks,
    Stage,
    TrainState,
    device_of,
    held_out_batch,
)

SETTLING = 20
"""Optimizer steps without a codebook, after which its codes are placed on latents."""

SCALE_IMAGES = 256
"""Training images on which the standard deviation of the latents is measured."""


class Reconstruction(NamedTuple):
    image: Tensor
    quantised: Quantised
    latent: Tensor


class Autoencoder(nn.Module):
    """Stage A as one forward pass, so that DDP and FSDP see every gradient."""

    last_used: Tensor

    def __init__(self, network: StageA) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("last_used", torch.zeros(network.config.codebook, dtype=torch.int64))

    def train(self, mode: bool = True) -> Self:
        """Under a LoRA the BatchNorm keeps its statistics."""
        super().train(mode)
        norms = (module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d))
        for norm in norms:
            norm.train(mode and all(p.requires_grad for p in norm.parameters()))
        return self

    def forward(self, image: Tensor, skip: Tensor) -> Reconstruction:
        """Reconstruct (B, 3, S, S); where `skip` (B, 1, 1, 1) is true, without the codebook."""
        latent = self.network.raw_latent(image)
        quantised = self.network.codebook(latent)
        decoded = self.network.raw_image(torch.where(skip, latent, quantised.latent))
        return Reconstruction(decoded, quantised, latent)


@final
class StageATrainer(Stage):
    name = "a"
    trained = "stage_a"

    training: StageATraining

    def __init__(
        self, config: StageAConfig, network: StageA, perceptual: Perceptual, train: Pairs
    ) -> None:
        """train: the training images, which give the exported latents unit scale"""
        self.training = training = config.training
        self._train = train
        if training.lora is not None:
            add_lora(network, training.lora)
        # A network that is fine-tuned has its codes where its latents are.
        self._settling = 0 if training.init_from else SETTLING
        self._autoencoder = Autoencoder(network)
        self._discriminator = Discriminator(
            training.discriminator_width, training.discriminator_depth
        )
        self._perceptual = perceptual
        self._points = torch.empty(0)  # (N, 4) latents of the last batch

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_a": self._autoencoder, "discriminator": self._discriminator}

    def frozen_networks(self) -> dict[str, nn.Module]:
        return {"vgg16": self._perceptual} if isinstance(self._perceptual, nn.Module) else {}

    def workloads(self) -> list[tuple[float, TrainState]]:
        """Before and after the discriminator joins."""
        training = self.training
        joined = 0.0
        if training.adversarial_weight > 0 and training.images > 0:
            joined = max(0.0, 1 - training.adversarial_start / training.images)
        found = [(1 - joined, 0), (joined, training.images)]
        return [(part, TrainState(STEADY_STEP, images)) for part, images in found if part > 0]

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        device = device_of(self._autoencoder)
        image = random_crop(batch.images.to(device), self.training.crop_size, streams)
        settled = state.step >= self._settling
        skip = streams.chosen(self.training.quantise_dropout if settled else 1.0)
        out: Reconstruction = networks["stage_a"](image, skip.view(-1, 1, 1, 1).to(device))
        error = F.mse_loss(out.image, image)
        perceptual = self._perceptual(out.image, image)
        value = error + self.training.perceptual_weight * perceptual
        # The codebook must have a gradient even when it counts for nothing: DDP waits for it.
        value = value + self.training.codebook_weight * settled * out.quantised.codebook_loss
        if settled:
            value = value + self.training.commitment_weight * out.quantised.commitment_loss
        scalars = {"error": error, "perceptual": perceptual}
        scalars["codebook"] = out.quantised.codebook_loss
        scalars["perplexity"] = perplexity(out.quantised.codes, len(self._autoencoder.last_used))
        joined = state.images >= self.training.adversarial_start
        adversarial = joined and self.training.adversarial_weight > 0
        if adversarial:
            generator_loss = -self._frozen_logits(out.image).mean()
            value = value + self.training.adversarial_weight * generator_loss
            scalars["adversarial"] = generator_loss
        self._points = out.latent.detach().float().permute(0, 2, 3, 1).reshape(-1, 4)
        self._autoencoder.last_used[out.quantised.codes.flatten()] = state.step
        yield Loss("stage_a", value, scalars)
        if not settled:  # even zero gradients would advance the optimizer's moments
            self._autoencoder.network.codebook.embedding.weight.grad = None
        if adversarial:
            yield self._discriminator_loss(networks["discriminator"], image, out.image.detach())

    @torch.no_grad()
    def after_step(self, state: TrainState) -> dict[str, float]:
        """Place the codes on latents after the settling steps; later, reset unused codes."""
        if state.step < self._settling or self.training.lora is not None:
            return {}
        last_used = all_reduce_max(self._autoencoder.last_used)
        unused = state.step - last_used > self.training.code_reset_after
        if state.step == self._settling:  # never in fine-tuning
            unused = torch.ones_like(unused)
        dead = unused.nonzero().flatten()
        if len(dead) == 0:
            return {"revived": 0.0}
        points = all_gather(self._points)
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(state.step))
        dead = dead[: len(points)]
        self._autoencoder.network.codebook.embedding.weight[dead] = points[order[: len(dead)]]
        last_used[dead] = state.step
        return {"revived": float(len(dead))}

    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
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
        image = held_out_batch(test, GRID_COLUMNS).images
        return sample_grid([image, self._reconstruct(network, image, skip=True).image.cpu()])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, Autoencoder)
        exported = network.network if self.training.lora is None else fused_copy(network.network)
        if not self.training.init_from:  # the Stage B of a base model knows the scale of the base
            scale = self._latent_scale(exported)
            exported.config = exported.config.model_copy(update={"scale": scale})
        weights.stage_a.save(folder, exported)

    @torch.no_grad()
    def _latent_scale(self, network: StageA) -> float:
        """Standard deviation of the latents: divided by it, they suit Stage B's unit noise."""
        image = held_out_batch(self._train, SCALE_IMAGES).images
        device = device_of(network)
        latents = [network.raw_latent(part.to(device)) for part in image.split(AT_ONCE)]
        return float(torch.cat(latents).std())

    def _frozen_logits(self, image: Tensor) -> Tensor:
        """The discriminator's logits, with gradients for the image alone."""
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
    def _reconstruct(self, network: nn.Module, image: Tensor, skip: bool) -> Reconstruction:
        device = device_of(network)
        choice = torch.full((len(image), 1, 1, 1), skip, device=device)
        out: Reconstruction = network(image.to(device), choice)
        return out


def perplexity(codes: Tensor, size: int) -> Tensor:
    """Effective number of codes in use: exp of the entropy, 1 to `size`."""
    flat = codes.flatten()
    # Not bincount, which reads the largest code off the device.
    counts = flat.new_zeros(size).scatter_add_(0, flat, torch.ones_like(flat))
    entropy: Tensor = torch.special.entr(counts.float() / flat.numel()).sum()
    return entropy.exp()
