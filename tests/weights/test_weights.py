"""Model folders: what is saved is what is loaded, by us and by diffusers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_networks import COMPRESSOR, TEXT, A, B, C, contents, noise, randomised, small_text

from wuerstchen import weights
from wuerstchen.config import CompressorModel
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

A_WEIGHTS = "vqgan/diffusion_pytorch_model.safetensors"


NETWORKS = [
    (weights.stage_a, StageA, A),
    (weights.stage_b, StageB, B),
    (weights.stage_c, StageC, C),
    (weights.compressor, Compressor, COMPRESSOR),
    (
        weights.compressor,
        Compressor,
        CompressorModel(width=0.5, depth=0.1, channels=3, affine=False),
    ),
]
every_network = pytest.mark.parametrize(("component", "kind", "config"), NETWORKS)


@every_network
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, component, kind, config) -> None:
    network = randomised(kind(config)).train()
    component.save(tmp_path / "new" / "folder", network)
    loaded = component.load(tmp_path / "new" / "folder")
    assert loaded.config == config
    assert not loaded.training
    assert list(loaded.state_dict()) == list(network.state_dict())
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
    fixed = {name: p.requires_grad for name, p in network.named_parameters()}
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == fixed
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])


@every_network
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_halves_the_file_and_loads_as_fp32(
    tmp_path: Path, component, kind, config, dtype: torch.dtype
) -> None:
    network = randomised(kind(config))
    component.save(tmp_path, network, dtype)
    [path] = tmp_path.rglob("*.safetensors")
    stored = {t.dtype for t in load_file(path).values() if t.is_floating_point()}
    assert stored == {dtype}
    for name, tensor in component.load(tmp_path).state_dict().items():
        expected = network.state_dict()[name]
        assert tensor.dtype == expected.dtype
        torch.testing.assert_close(tensor, expected, rtol=2**-8, atol=1e-6)


def test_saving_again_writes_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    weights.stage_a.save(tmp_path, weights.stage_a.load(whole))
    weights.stage_b.save(tmp_path, weights.stage_b.load(whole))
    weights.stage_c.save(tmp_path, weights.stage_c.load(whole))
    weights.compressor.save(tmp_path, weights.compressor.load(whole))
    weights.text_b.save(tmp_path, weights.text_b.load(whole))
    weights.text_c.save(tmp_path, weights.text_c.load(whole))
    weights.write_index(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_text_encoders_encode_the_same_after_loading(whole: Path) -> None:
    captions = ["a red fox", "", "a dog!! & 🦊", "word " * 40]
    for component, seed in ((weights.text_b, 1), (weights.text_c, 2)):
        loaded = component.load(whole)
        assert not loaded.model.training
        assert loaded.length == TEXT.max_length
        torch.testing.assert_close(loaded(captions), small_text(seed=seed)(captions))


def test_loaded_networks_are_independent_of_the_file(folder: Path) -> None:
    network = weights.stage_a.load(folder)
    before = (folder / A_WEIGHTS).read_bytes()
    image = noise(1, 3, 8, 8)
    expected = network.raw_latent(image)
    (folder / A_WEIGHTS).write_bytes(b"\xff" * len(before))
    assert torch.equal(network.raw_latent(image), expected)


def test_files_are_as_readable_as_their_folder(whole: Path) -> None:
    for path in whole.rglob("*.safetensors"):
        assert path.stat().st_mode & 0o666 == path.parent.stat().st_mode & 0o666


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Silence diffusers, which logs at every loading that the pipeline is deprecated."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@pytest.mark.parametrize("opener", ["WuerstchenCombinedPipeline", "DiffusionPipeline"])
def test_diffusers_opens_the_folder_with_the_same_weights(whole: Path, opener: str) -> None:
    import diffusers

    with quiet_diffusers():
        pipeline = getattr(diffusers, opener).from_pretrained(whole)
    assert type(pipeline).__name__ == "WuerstchenCombinedPipeline"
    x, t = noise(1, 16, 3, 2), torch.tensor([0.4])
    caption = "two blue birds"
    encoder, stage_c = weights.text_c.load(whole), weights.stage_c.load(whole)
    tokens = pipeline.prior_tokenizer(
        caption, padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        text = pipeline.prior_text_encoder(**tokens).last_hidden_state
        found = pipeline.prior_prior(x, t, text)
        expected = stage_c(x, t, stage_c.condition(encoder([caption])))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert pipeline.vqgan.config.scale_factor == A.scale
    for scheduler in (pipeline.scheduler, pipeline.prior_scheduler):
        assert (scheduler.config.scaler, scheduler.config.s) == (1.0, 0.008)
