"""Laws of the sizes; the oracle is the paper and its released pipeline."""

import pytest
import torch

from wuerstchen import geometry
from wuerstchen.config import CompressorModel
from wuerstchen.errors import SizeError
from wuerstchen.models.compressor import Compressor

SIDES = range(128, 4097, 128)


@pytest.mark.parametrize(
    ("side", "latent", "semantics", "pixels"),
    [(128, 32, 3, 96), (512, 128, 12, 384), (1024, 256, 24, 768), (1536, 384, 36, 1152)],
)
def test_sizes_are_the_published_ones(side: int, latent: int, semantics: int, pixels: int) -> None:
    assert geometry.latent_size(side, side) == (latent, latent)
    assert geometry.semantics_size(side, side) == (semantics, semantics)
    assert geometry.compressor_size(side, side) == (pixels, pixels)


def test_every_legal_size_fits_all_three_grids_without_rounding() -> None:
    for side in SIDES:
        rows, columns = geometry.semantics_size(side, 2 * side)
        assert (128 * rows, columns) == (3 * side, 2 * rows), side
        assert geometry.compressor_size(side, side)[0] == 0.75 * side, side


def test_the_latent_size_follows_from_the_semantics_alone() -> None:
    for side in SIDES:
        found = geometry.latent_size_of_semantics(*geometry.semantics_size(side, 256))
        assert found == geometry.latent_size(side, 256), side


def test_height_stays_height_and_width_stays_width() -> None:
    assert geometry.latent_size(256, 512) == (64, 128)
    assert geometry.semantics_size(256, 512) == (6, 12)
    assert geometry.latent_size_of_semantics(6, 12) == (64, 128)


def test_the_compressor_has_the_stride_that_the_sizes_assume() -> None:
    compressor = Compressor(CompressorModel(width=0.25, depth=0.1)).eval()
    size = geometry.compressor_size(128, 256)
    with torch.no_grad():
        semantics = compressor(torch.rand(1, 3, *size))
    assert semantics.shape[2:] == geometry.semantics_size(128, 256)


def test_multiples_of_128_pass() -> None:
    for side in SIDES:
        geometry.check_size(side, 128)
        geometry.check_size(128, side)


@pytest.mark.parametrize(
    ("side", "near"), [(500, 512), (1, 128), (129, 128), (0, 128), (-128, 128)]
)
@pytest.mark.parametrize("name", ["height", "width"])
def test_other_sizes_are_refused_with_the_side_and_the_nearest_that_fits(
    name: str, side: int, near: int
) -> None:
    height, width = (side, 256) if name == "height" else (256, side)
    with pytest.raises(SizeError, match=rf"^{name} .* found {side}; .* {near}\.$"):
        geometry.check_size(height, width)
