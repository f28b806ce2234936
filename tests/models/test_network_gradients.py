"""Every parameter learns: its gradient is finite and not zero."""

import pytest
import torch
from small_networks import COMPRESSOR, A, B, C, noise, randomised
from torch import Tensor, nn

from wuerstchen.config import CompressorModel
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.discriminator import Discriminator
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

T = torch.tensor([0.2, 0.9])


def check(network: nn.Module, loss: Tensor) -> None:
    loss.backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{name} got no gradient"
        assert parameter.grad.isfinite().all(), f"{name} got a gradient that is not finite"
        # the softmax does not change when all keys are shifted, so this one is truly zero
        if not name.endswith("to_k.bias"):
            assert parameter.grad.abs().max() > 0, f"{name} got a gradient of zero"


def test_stage_a() -> None:
    network = randomised(StageA(A)).train()
    image = noise(2, 3, 36, 20).sigmoid()
    quantised = network.codebook(network.raw_latent(image))
    losses = quantised.codebook_loss + quantised.commitment_loss
    check(network, (network.raw_image(quantised.latent) - image).square().mean() + losses)


def test_the_codebook_passes_gradients_straight_through() -> None:
    latent = noise(1, 4, 3, 2).requires_grad_()
    weight = noise(1, 4, 3, 2, seed=1)
    (StageA(A).codebook(latent).latent * weight).sum().backward()
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, weight)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_stage_b(checkpointing: bool) -> None:
    network = randomised(StageB(B)).train()
    network.gradient_checkpointing = checkpointing
    condition = network.condition(noise(2, 16, 3, 2), noise(2, 5, 32), (24, 16))
    check(network, network(noise(2, 4, 24, 16), T, condition).square().mean())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_stage_c(checkpointing: bool) -> None:
    network = randomised(StageC(C)).train()
    network.gradient_checkpointing = checkpointing
    condition = network.condition(noise(2, 5, 32))
    check(network, network(noise(2, 16, 5, 3), T, condition).square().mean())


@pytest.mark.parametrize("affine", [False, True])
def test_compressor(affine: bool) -> None:
    config = CompressorModel(**{**COMPRESSOR.model_dump(), "affine": affine})
    network = Compressor(config).train()
    semantics = network(noise(4, 3, 64, 96).sigmoid())
    check(network, (semantics * noise(*semantics.shape, seed=1)).sum())


def test_discriminator() -> None:
    network = Discriminator(width=8, depth=3).train()
    check(network, network(noise(2, 3, 64, 64).sigmoid()).square().mean())


def test_checkpointing_does_not_change_the_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        network = randomised(StageC(C.model_copy(update={"dropout": 0.0}))).train()
        network.gradient_checkpointing = checkpointing
        condition = network.condition(noise(2, 5, 32))
        network(noise(2, 16, 5, 3), T, condition).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)
