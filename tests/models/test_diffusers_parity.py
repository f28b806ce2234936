"""Our networks equal those of diffusers 0.42.1 with the same weights, converted both ways."""

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen import (
    PaellaVQModel,
    WuerstchenDiffNeXt,
    WuerstchenPrior,
)
from small_networks import keep_from_one, noise, randomised
from torch import Tensor

from wuerstchen import weights
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}

A_CONFIGS = [
    {"embed_dim": 16, "bottleneck_blocks": 2, "num_vq_embeddings": 32, "scale_factor": 0.3764},
    {"embed_dim": 24, "bottleneck_blocks": 1, "num_vq_embeddings": 7, "scale_factor": 1.7},
]
B_CONFIGS = [
    {
        "c_hidden": [8, 16, 24],
        "nhead": [-1, 2, 3],
        "blocks": [1, 2, 3],
        "level_config": ["CT", "CTA", "CTA"],
        "inject_effnet": [False, True, True],
        "effnet_embd": 16,
        "c_cond": 12,
        "clip_embd": 20,
        "c_r": 64,
    },
    {
        "c_hidden": [16, 8],
        "nhead": [4, -1],
        "blocks": [2, 1],
        "level_config": ["CTA", "CT"],
        "inject_effnet": [True, False],
        "effnet_embd": 5,
        "c_cond": 16,
        "clip_embd": 8,
        "c_r": 10,
        "patch_size": 4,
    },
    {
        "c_hidden": [8],
        "nhead": [1],
        "blocks": [1],
        "level_config": ["CTA"],
        "inject_effnet": [True],
        "effnet_embd": 3,
        "c_cond": 8,
        "clip_embd": 8,
        "patch_size": 1,
    },
]
C_CONFIGS = [
    {"c_in": 16, "c": 24, "c_cond": 20, "c_r": 64, "depth": 3, "nhead": 2},
    {"c_in": 4, "c": 16, "c_cond": 8, "c_r": 12, "depth": 1, "nhead": 4},
]


def both_a(folder: Path, config: dict[str, object], way: str) -> tuple[StageA, PaellaVQModel]:
    theirs = randomised(PaellaVQModel(**config))
    theirs.save_pretrained(folder / "vqgan")
    ours = weights.stage_a.load(folder)
    if way == "ours to theirs":
        weights.stage_a.save(folder, randomised(ours, seed=1))
        theirs = PaellaVQModel.from_pretrained(folder / "vqgan").eval()
    return ours, theirs


def both_b(folder: Path, config: dict[str, object], way: str) -> tuple[StageB, WuerstchenDiffNeXt]:
    theirs = randomised(WuerstchenDiffNeXt(**config))
    theirs.save_pretrained(folder / "decoder")
    ours = weights.stage_b.load(folder)
    if way == "ours to theirs":
        weights.stage_b.save(folder, randomised(ours, seed=1))
        theirs = WuerstchenDiffNeXt.from_pretrained(folder / "decoder").eval()
    return ours, theirs


def both_c(folder: Path, config: dict[str, object], way: str) -> tuple[StageC, WuerstchenPrior]:
    theirs = randomised(WuerstchenPrior(**config))
    keep_from_one(theirs.out[1])
    theirs.save_pretrained(folder / "prior_prior")
    ours = weights.stage_c.load(folder)
    if way == "ours to theirs":
        keep_from_one(randomised(ours, seed=1).head[1])
        weights.stage_c.save(folder, ours)
        theirs = WuerstchenPrior.from_pretrained(folder / "prior_prior").eval()
    return ours, theirs


both_ways = pytest.mark.parametrize("way", ["theirs to ours", "ours to theirs"])


@both_ways
@pytest.mark.parametrize("config", A_CONFIGS)
@pytest.mark.parametrize("size", [(36, 20), (4, 4), (64, 44)])
@torch.no_grad()
def test_stage_a_encodes_and_decodes_as_diffusers(
    tmp_path: Path, config: dict[str, object], size: tuple[int, int], way: str
) -> None:
    ours, theirs = both_a(tmp_path, config, way)
    scale = config["scale_factor"]
    assert isinstance(scale, float)
    image = noise(2, 3, *size).sigmoid()
    latent = noise(2, 4, size[0] // 4, size[1] // 4)

    # diffusers leaves the scale to its pipeline, which divides and multiplies by it
    torch.testing.assert_close(
        ours.encode(image), theirs.encode(image).latents / scale, **TOLERANCE
    )
    expected = theirs.decode(latent * scale).sample
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.raw_image(latent * scale), expected, **TOLERANCE)
    torch.testing.assert_close(ours.decode(latent), expected.clamp(0, 1), **TOLERANCE)


@torch.no_grad()
def test_the_codebook_chooses_the_codes_of_diffusers(tmp_path: Path) -> None:
    ours, theirs = both_a(tmp_path, A_CONFIGS[0], "theirs to ours")
    latent = noise(2, 4, 5, 3) * 0.05
    expected, _, (_, _, codes) = theirs.vquantizer(latent)
    found = ours.codebook(latent)
    assert len(found.codes.unique()) > 5
    assert torch.equal(found.codes.flatten(), codes.flatten())
    torch.testing.assert_close(found.latent, expected, **TOLERANCE)


@both_ways
@pytest.mark.parametrize("config", B_CONFIGS)
@pytest.mark.parametrize(
    ("size", "semantics", "length"),
    [((24, 40), (3, 5), 7), ((8, 8), (1, 1), 1), ((16, 40), (5, 2), 77)],
)
@torch.no_grad()
def test_stage_b_predicts_the_noise_of_diffusers(
    tmp_path: Path,
    config: dict[str, object],
    size: tuple[int, int],
    semantics: tuple[int, int],
    length: int,
    way: str,
) -> None:
    ours, theirs = both_b(tmp_path, config, way)
    x, t = noise(2, 4, *size), torch.tensor([0.03, 0.97])
    seen = noise(2, ours.config.semantic_channels, *semantics, seed=1) * 5
    text = noise(2, length, ours.config.text_width, seed=2)

    def ask(text: Tensor, seen: Tensor) -> Tensor:
        found: Tensor = ours(x, t, ours.condition(seen, text, size))
        return found

    found = ask(text, seen)
    torch.testing.assert_close(found, theirs(x, t, seen, text), **TOLERANCE)
    # the comparison would see a text or semantics that are left out
    assert (found - ask(-text, seen)).abs().max() > 1e-4
    assert (found - ask(text, -seen)).abs().max() > 1e-4


@both_ways
@pytest.mark.parametrize("config", C_CONFIGS)
@pytest.mark.parametrize(("size", "length"), [((5, 3), 77), ((1, 7), 1), ((12, 12), 9)])
@torch.no_grad()
def test_stage_c_predicts_the_noise_of_diffusers(
    tmp_path: Path, config: dict[str, object], size: tuple[int, int], length: int, way: str
) -> None:
    ours, theirs = both_c(tmp_path, config, way)
    x, t = noise(2, ours.config.semantic_channels, *size), torch.tensor([0.5, 1.0])
    text = noise(2, length, ours.config.text_width, seed=1)
    found = ours(x, t, ours.condition(text))
    torch.testing.assert_close(found, theirs(x, t, text), **TOLERANCE)
    assert (found - ours(x, t, ours.condition(-text))).abs().max() > 1e-4
