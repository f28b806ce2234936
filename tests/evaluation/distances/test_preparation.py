"""Crops and filters, against other implementations and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wuerstchen.evaluation.distances.preparation import Preparation


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(60, 190, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1).float()


def test_clean_is_the_antialiased_bicubic_filter_of_torch() -> None:
    image = noise(96, 96)
    expected = F.interpolate(tensor(image)[None], (40, 40), mode="bicubic", antialias=True)[0]
    torch.testing.assert_close(Preparation()(image, 40), expected, atol=1e-4, rtol=0)


def test_clean_rounds_nothing_and_clips_what_overshoots() -> None:
    ramp = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)[..., None].repeat(3, axis=2))
    found = Preparation()(ramp, 5) * 255
    assert not torch.equal(found, found.round())
    edge = Image.fromarray(np.array([[0, 255]] * 2, np.uint8)[..., None].repeat(3, axis=2))
    found = Preparation()(edge, 9)
    assert float(found.min()) == 0 and float(found.max()) == 1


def test_legacy_takes_two_pixels_of_four_and_so_aliases() -> None:
    """At a quarter of the size, the sample points lie between the second and third pixel."""
    image = noise(64, 64)
    blocks = tensor(image).reshape(3, 16, 4, 16, 4)
    expected = blocks[:, :, 1:3, :, 1:3].mean(dim=(2, 4))
    torch.testing.assert_close(Preparation(resize="legacy")(image, 16), expected)


@pytest.mark.parametrize("resize", ["clean", "legacy"])
def test_an_image_of_the_networks_side_is_left_as_it_is(resize: str) -> None:
    image = noise(32, 32)
    prepared = Preparation(resize=resize)(image, 32)  # type: ignore[arg-type]
    assert torch.equal(prepared, tensor(image))


def test_the_square_is_the_centre_and_without_a_crop_all_is_kept() -> None:
    image = Image.new("RGB", (60, 20), "blue")
    image.paste("red", (20, 0, 40, 20))
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 20, 20)
    assert torch.equal(Preparation()(image, 20), red)
    whole = Preparation(crop="none")(image, 30)
    assert float(whole[2, :, :5].min()) == pytest.approx(1, abs=1e-3)


def test_a_size_loses_the_detail_that_it_cannot_have() -> None:
    image = noise(64, 64)
    small = image.resize((16, 16), Image.Resampling.BICUBIC)
    prepared = Preparation(size=16)(image, 64)
    assert torch.equal(prepared, Preparation()(small, 64))
    assert torch.equal(Preparation(size=16)(image, 16), tensor(small))
