"""Without gradients the results are the same: fused, folded, in strips."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.pipelines.deprecated.wuerstchen import WuerstchenDiffNeXt
from small_networks import A, B, C, keep_from_one, noise, randomised
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.models import fused
from wuerstchen.models.blocks import AttentionBlock, ConvBlock
from wuerstchen.models.stage_a import MixingBlock, StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

batches = pytest.mark.parametrize("count", [1, 3])
sizes = pytest.mark.parametrize("size", [(1, 1), (5, 3), (12, 17)])


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small maps take several strips, the last of them shorter."""
    monkeypatch.setattr(fused, "STRIP", 300)


def assert_same(network: nn.Module, *inputs: object) -> None:
    """With gradients and without: within 1e-5 of the largest number that comes out."""
    plain = network(*inputs)
    assert plain.requires_grad, "this one is computed the plain way"
    with torch.inference_mode():
        found = network(*inputs)
    assert found.shape == plain.shape
    largest = float(plain.detach().abs().max())
    assert largest > 1e-3
    torch.testing.assert_close(found, plain.detach(), atol=1e-5 * largest, rtol=0)


@batches
@sizes
def test_a_convolution_block_is_the_same_with_and_without_gradients(count, size):
    block = randomised(ConvBlock(16, 8, 0.1))
    x = noise(count, 16, *size).contiguous(memory_format=torch.channels_last)
    assert_same(block, x, noise(count, 5, *size, seed=1), noise(count, 3, *size, seed=2))


@batches
@sizes
def test_an_attention_block_is_the_same_with_and_without_gradients(count, size):
    block = randomised(AttentionBlock(16, 12, 2, 0.1))
    text = noise(count, 7, 12, seed=1)
    with torch.inference_mode():
        lean_text = block.condition(text)
    plain_text = block.condition(text)
    for found, plain in zip(lean_text, plain_text, strict=True):
        torch.testing.assert_close(found, plain.detach(), atol=1e-6, rtol=0)
    x = noise(count, 16, *size).contiguous(memory_format=torch.channels_last)
    assert_same(block, x, type(plain_text)(*(part.detach() for part in plain_text)))


@batches
@sizes
def test_a_block_of_stage_a_is_the_same_in_strips_with_and_without_gradients(count, size):
    block = randomised(MixingBlock(16))
    assert len(fused.strips(12, count * 4 * 16 * 17, torch.device("cpu"))) > 1
    assert_same(block, noise(count, 16, *size).contiguous(memory_format=torch.channels_last))


@batches
def test_the_stages_are_the_same_with_and_without_gradients(count):
    a, b, c = randomised(StageA(A)), randomised(StageB(B)), randomised(StageC(C))
    keep_from_one(c.head[1])
    t, text = torch.linspace(0.1, 0.9, count), noise(count, 7, 32, seed=1)

    class Whole(nn.Module):
        """With its condition: half of what is done differently is there."""

        def __init__(self, stage: StageB | StageC, *given: object) -> None:
            super().__init__()
            self.stage, self.given = stage, given

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.stage(x, t, self.stage.condition(*self.given))  # type: ignore[arg-type]
            return made

    assert_same(Whole(b, noise(count, 16, 3, 5, seed=2), text, (24, 40)), noise(count, 4, 24, 40))
    assert_same(Whole(c, text), noise(count, 16, 5, 3))

    class Decoder(nn.Module):
        def forward(self, latent: Tensor) -> Tensor:
            return a.raw_image(latent)

    assert_same(Decoder(), noise(count, 4, 9, 7))


class MappedFirst(nn.Module):
    """The published formula: map the semantics, join them with the features, one linear layer."""

    def __init__(self, block: ConvBlock, mapper: nn.Conv2d) -> None:
        super().__init__()
        self.block, self.mapper = block, mapper

    def forward(self, x: Tensor, skip: Tensor, semantics: Tensor) -> Tensor:
        block = self.block
        first, _, grn, _, last = block.channelwise
        features = F.layer_norm(block.depthwise(x).permute(0, 2, 3, 1), (16,), eps=1e-6)
        joined = [features, skip.permute(0, 2, 3, 1), self.mapper(semantics).permute(0, 2, 3, 1)]
        hidden = F.gelu(first(torch.cat(joined, dim=-1)))
        energy = hidden.square().sum(dim=(1, 2), keepdim=True).sqrt()
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        hidden = grn.gamma * (hidden * share) + grn.beta + hidden  # type: ignore[operator]
        out: Tensor = x + last(hidden).permute(0, 3, 1, 2)
        return out


@pytest.fixture
def unfolded() -> MappedFirst:
    return randomised(MappedFirst(ConvBlock(16, 6 + 24, 0.0), nn.Conv2d(4, 24, kernel_size=1)))


def test_a_folded_block_computes_the_formula_that_maps_first(unfolded):
    x, skip, semantics = noise(2, 16, 5, 7), noise(2, 6, 5, 7, seed=1), noise(2, 4, 5, 7, seed=2)
    folded = unfolded.block.fold(unfolded.mapper)
    assert folded is not None and folded.weight.shape == (64, 16 + 6 + 4)
    expected = unfolded(x, skip, semantics)
    found = unfolded.block(x, skip, semantics, folded=folded)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with torch.inference_mode():
        folded = unfolded.block.fold(unfolded.mapper)
        found = unfolded.block(x, skip, semantics, folded=folded)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=0)
    other = unfolded(x, skip, semantics.flip(0))
    assert (other - expected).abs().max() > 1e-2, "semantics that are left out would be seen"


def test_gradients_through_a_folded_block_are_those_of_the_formula(unfolded):
    inputs = noise(2, 16, 5, 7), noise(2, 6, 5, 7, seed=1), noise(2, 4, 5, 7, seed=2)
    weight = noise(2, 16, 5, 7, seed=3)

    def gradients(made: Tensor, given: tuple[Tensor, ...]) -> dict[str, Tensor]:
        unfolded.zero_grad()
        (made * weight).sum().backward()
        found = {str(index): x.grad for index, x in enumerate(given)}
        found |= {name: parameter.grad for name, parameter in unfolded.named_parameters()}
        assert None not in found.values()
        return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}

    given = tuple(x.clone().requires_grad_() for x in inputs)
    expected = gradients(unfolded(*given), given)
    given = tuple(x.clone().requires_grad_() for x in inputs)
    folded = unfolded.block.fold(unfolded.mapper)
    found = gradients(unfolded.block(*given, folded=folded), given)
    for name, gradient in expected.items():
        largest = float(gradient.abs().max())
        assert largest > 0, name
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * largest, rtol=0)


def test_folding_in_half_precision_rounds_once(unfolded):
    exact = unfolded.block.fold(unfolded.mapper)
    half = unfolded.to(torch.bfloat16)
    folded = half.block.fold(half.mapper)
    assert folded.weight.dtype == torch.bfloat16
    torch.testing.assert_close(folded.weight.float(), exact.weight.detach(), atol=8e-3, rtol=2e-2)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_stage_b_folded_predicts_the_noise_of_diffusers_which_maps_in_every_block(tmp_path, scale):
    config = {
        "c_hidden": [8, 16],
        "nhead": [-1, 2],
        "blocks": [1, 3],
        "level_config": ["CT", "CTA"],
    }
    theirs = randomised(
        WuerstchenDiffNeXt(
            **config, inject_effnet=[True, True], effnet_embd=5, c_cond=40, clip_embd=20, c_r=16
        )
    )
    theirs.save_pretrained(tmp_path / "decoder")
    ours = weights.stage_b.load(tmp_path)
    x, t = noise(3, 4, 24, 40), torch.tensor([0.1, 0.5, 0.9])
    seen, text = noise(3, 5, 3, 5, seed=1) * scale, noise(3, 7, 20, seed=2)
    with torch.inference_mode():
        condition = ours.condition(seen, text, (24, 40))
        for level in (*condition.down, *condition.up):
            assert level.semantics.shape[1] == 5 and None not in level.folded
        found = ours(x, t, condition)
        expected = theirs(x, t, seen, text)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_wrapped_layer_is_called_and_not_bypassed():
    """As an adapter wraps it: what it adds would be lost where its weights were read."""

    class Wrapped(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base

        in_features = property(lambda self: self.base.in_features)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.base(x) + 1
            return out

    stage = randomised(StageB(B))
    given = noise(1, 16, 3, 3, seed=2), noise(1, 7, 32, seed=1), (24, 24)
    x, t = noise(1, 4, 24, 24), torch.tensor([0.5])
    blocks = [module for module in stage.modules() if isinstance(module, ConvBlock)]
    for block in blocks:
        block.channelwise[0] = Wrapped(block.channelwise[0])  # type: ignore[arg-type]
    plain = stage(x, t, stage.condition(*given))
    with torch.inference_mode():
        found = stage(x, t, stage.condition(*given))
        for block in blocks:
            block.channelwise[0] = block.channelwise[0].base  # type: ignore[union-attr, assignment]
        without = stage(x, t, stage.condition(*given))
    torch.testing.assert_close(found, plain.detach(), atol=1e-5, rtol=0)
    assert (found - without).abs().max() > 1e-2


@pytest.mark.parametrize("height", [1, 13, 32])
@pytest.mark.parametrize("rows", [1, 5, 100])
@torch.inference_mode()
def test_stage_a_decodes_the_same_in_strips_and_in_one_piece(height, rows):
    stage = randomised(StageA(A))
    latent = noise(2, 4, height, 9) * 2
    whole, strips = stage.decode(latent), stage.decode_in_strips(latent, rows)
    assert whole.std() > 0.01
    torch.testing.assert_close(strips, whole, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_strips_have_the_context_of_the_receptive_field(monkeypatch):
    """The reach of the decoder, measured: else strips that are too narrow could pass unseen."""
    stage = randomised(StageA(A))
    latent = noise(1, 4, 32, 9)
    other = latent.clone()
    other[:, :, 20] += 50
    changed = (stage.raw_image(latent) - stage.raw_image(other)).abs().amax(dim=(0, 1, 3))
    seen = changed.nonzero().flatten() // 4  # rows of the latent
    reach = 20 - int(seen.min())
    assert int(seen.max()) - 20 == reach == stage.config.depth + 1

    taken: list[int] = []
    decode = stage.decode
    monkeypatch.setattr(stage, "decode", lambda rows: taken.append(rows.shape[2]) or decode(rows))
    stage.decode_in_strips(latent, 1)
    assert len(taken) == 32 and min(taken[reach : 32 - reach]) >= 1 + 2 * reach
    assert max(taken) < 16, "a strip is much less than the whole"
