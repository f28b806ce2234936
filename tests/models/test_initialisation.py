"""Initialisation of the networks, by the laws of the published code."""

import math

import torch
from small_networks import A, B, C, noise
from torch import nn

from wuerstchen.config import StageCModel
from wuerstchen.models.blocks import ConvBlock, TimeBlock
from wuerstchen.models.stage_a import MixingBlock, StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

T = torch.tensor([0.2, 0.9])


def xavier_bound(weight: torch.Tensor) -> float:
    """Uniform between minus and plus this (Glorot and Bengio 2010, equation 16)."""
    field = weight[0, 0].numel()
    return math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * field))


def assert_uniform(weight: torch.Tensor, bound: float) -> None:
    assert 0.9 * bound < weight.abs().max() <= bound * (1 + 1e-6)


def assert_normal(weight: torch.Tensor, std: float) -> None:
    assert 0.8 * std < weight.std() < 1.2 * std


@torch.no_grad()
def test_a_new_stage_c_predicts_that_all_is_noise() -> None:
    x = noise(2, 16, 5, 3)
    network = StageC(C).eval()
    found = network(x, T, network.condition(noise(2, 7, 32, seed=1)))
    torch.testing.assert_close(found, x / (1 + 1e-5))


@torch.no_grad()
def test_a_new_stage_b_divides_by_one_half() -> None:
    x = noise(2, 4, 24, 16)
    network = StageB(B).eval()
    condition = network.condition(noise(2, 16, 3, 2, seed=1), noise(2, 7, 32, seed=2), (24, 16))
    torch.testing.assert_close(network(x, T, condition), 2 * x)


@torch.no_grad()
def test_a_new_mixing_block_is_the_identity() -> None:
    x = noise(2, 16, 5, 3)
    assert torch.equal(MixingBlock(16)(x), x)


def test_a_new_codebook_is_within_one_over_its_size() -> None:
    assert_uniform(StageA(A).codebook.embedding.weight, 1 / A.codebook)


def test_weights_start_with_the_published_deviations() -> None:
    b, c = StageB(B), StageC(C)
    for layer in (b.text_mapper, *(m for m in b.semantics_mappers if isinstance(m, nn.Conv2d))):
        assert_normal(layer.weight, 0.02)
    assert_normal(c.projection.weight, 0.02)
    assert_uniform(b.embedding[1].weight, 0.02 * xavier_bound(b.embedding[1].weight))
    for network, blocks in ((b, sum(B.blocks)), (c, C.depth)):
        for module in network.modules():
            if isinstance(module, ConvBlock):
                first, last = module.channelwise[0].weight, module.channelwise[4].weight
                assert_uniform(first, xavier_bound(first))
                assert_uniform(last, xavier_bound(last) / math.sqrt(blocks))
            if isinstance(module, TimeBlock):
                assert not module.mapper.weight.any()
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                assert not module.bias.any()


def test_mapped_text_of_stage_c_has_the_published_variance_at_every_width() -> None:
    """The published spread 0.02 is that of 1280 and 1536 inputs."""
    with torch.device("meta"):
        published = StageC(StageCModel()).text_mapper
    inputs = [layer.in_features for layer in published if isinstance(layer, nn.Linear)]
    assert inputs == [1280, 1536]
    for width, text_width in ((64, 32), (96, 256)):
        small = StageC(StageCModel(width=width, depth=1, heads=2, text_width=text_width))
        for layer, count in zip((small.text_mapper[0], small.text_mapper[2]), inputs, strict=True):
            assert_normal(layer.weight, 0.02 * math.sqrt(count / layer.in_features))


def test_a_fixed_divisor_stays_while_the_network_learns() -> None:
    network = StageC(C).train()
    network.hold_divisor()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(4):
        optimizer.zero_grad()
        x = noise(2, 16, 5, 3, seed=step)
        found = network(x, T, network.condition(noise(2, 7, 32, seed=step)))
        (found - x.flip(0)).square().mean().backward()
        optimizer.step()
    output = network.head[1]
    assert not output.weight[16:].any() and not output.bias[16:].any()
    assert output.weight[:16].all() and output.bias[:16].all()


def test_the_published_head_starts_with_a_finite_loss_and_gradient() -> None:
    network = StageC(C).train()
    x = noise(2, 16, 5, 3)
    loss = (network(x, T, network.condition(noise(2, 7, 32))) - x).square().mean()
    loss.backward()
    assert loss.isfinite() and loss < 1e-6
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
def test_a_stage_b_without_text_ignores_it() -> None:
    network = StageB(B).eval()
    nn.init.normal_(network.head[1].weight, std=0.1)
    network.hold_text()
    semantics = noise(2, 16, 3, 2)
    one, other = (
        network.condition(semantics, noise(2, 7, 32, seed=seed), (8, 8)) for seed in (1, 2)
    )
    x = noise(2, 4, 8, 8)
    assert torch.equal(network(x, T, one), network(x, T, other))
