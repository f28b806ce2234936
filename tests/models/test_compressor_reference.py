"""The compressor against recorded outputs of torchvision's EfficientNetV2-S.

`tests/reference/compressor.json` says how weights and images are made from sines.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from small_networks import COMPRESSOR, noise
from torch import Tensor

from wuerstchen.config import CompressorModel
from wuerstchen.models.compressor import Compressor

REFERENCE = Path(__file__).parent.parent / "reference"


def manifest() -> dict[str, list[int]]:
    """Key and shape of each tensor, in order."""
    lines = (REFERENCE / "compressor_keys.txt").read_text(encoding="utf-8").splitlines()
    return {
        name: json.loads(shape) for name, shape in (line.split(" ", maxsplit=1) for line in lines)
    }


def sine_weight(name: str, like: Tensor, position: int) -> Tensor:
    if not like.is_floating_point():
        return torch.zeros_like(like)
    wave = torch.sin(0.37 * torch.arange(like.numel(), dtype=torch.float64) + position)
    if like.dim() >= 2:
        values = wave * 2.5 / math.sqrt(like[0].numel())
    elif name.endswith("running_var"):
        values = 1 + 0.5 * wave.abs()
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * wave
    else:
        values = 1 + 0.1 * wave
    return values.view(like.shape).float()


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    with torch.device("meta"):
        shapes = Compressor(CompressorModel(affine=False)).state_dict()
    network = Compressor(CompressorModel(affine=False))
    network.load_state_dict(
        {
            name: sine_weight(name, shapes[name].new_empty(shape, device="cpu"), position)
            for position, (name, shape) in enumerate(manifest().items())
        }
    )
    return network.eval()


def images() -> Tensor:
    wave = torch.sin(0.011 * torch.arange(2 * 3 * 96 * 128, dtype=torch.float64))
    return wave.view(2, 3, 96, 128).float()


def test_tensors_have_the_names_and_shapes_of_torchvision(compressor: Compressor) -> None:
    expected = manifest()
    assert len(expected) == 784
    found = {name: list(tensor.shape) for name, tensor in compressor.state_dict().items()}
    assert list(found.items()) == list(expected.items())


@torch.no_grad()
def test_backbone_and_semantics_are_those_of_torchvision(compressor: Compressor) -> None:
    expected = json.loads((REFERENCE / "compressor.json").read_text(encoding="utf-8"))
    for name, found in (
        ("backbone", compressor.backbone(images())),
        ("semantics", compressor.semantics(images())),
    ):
        assert list(found.shape) == expected[name]["shape"]
        first = torch.tensor(expected[name]["first"])
        torch.testing.assert_close(found.flatten()[:8], first, atol=1e-4, rtol=0)
        assert found.mean().item() == pytest.approx(expected[name]["mean"], abs=1e-4)
        assert found.std().item() == pytest.approx(expected[name]["std"], abs=1e-4)


@torch.no_grad()
def test_images_are_normalised_as_imagenet_was(compressor: Compressor) -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    spread = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    found = compressor(images() * spread + mean)
    torch.testing.assert_close(found, compressor.semantics(images()), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (96, 64)])
@torch.no_grad()
def test_semantics_have_a_cell_for_32_pixels(size: tuple[int, int]) -> None:
    found = Compressor(COMPRESSOR).eval()(noise(2, 3, *size).sigmoid())
    assert found.shape == (2, COMPRESSOR.channels, size[0] // 32, size[1] // 32)


@torch.no_grad()
def test_scaled_semantics_of_a_new_compressor_have_unit_variance() -> None:
    semantics = Compressor(COMPRESSOR).train()(noise(8, 3, 96, 96).sigmoid())
    scaled = (semantics + 1) / 42  # what Stage C diffuses
    assert scaled.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(
        scaled.std(dim=(0, 2, 3), correction=0), torch.ones(COMPRESSOR.channels), atol=0.01, rtol=0
    )
