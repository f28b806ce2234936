"""Figures of how much two results differ, and what is expected of them."""

import math

import torch
from torch import Tensor

from wuerstchen import Pipeline

PROMPT = "a 3D red heart on a white background"


class Failed(Exception):
    """A check whose figures are not as expected."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def image_of(pipeline: Pipeline, seed: int = 3) -> Tensor:
    """(1, 3, H, W) in [0, 1], on the CPU."""
    images = pipeline(PROMPT, seed=seed, output_type="pt").images
    assert isinstance(images, Tensor)
    return images.float().cpu()


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def psnr(found: Tensor, expected: Tensor) -> float:
    """Of images in [0, 1]; infinite for equal ones."""
    error = float((found - expected).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def expect(
    what: str, value: float, *, at_least: float = -math.inf, at_most: float = math.inf
) -> str:
    """The figure; raises Failed where it is outside, or not a number."""
    figure = f"{what} {value:.4g}"
    if not at_least <= value <= at_most:
        limit = f"at least {at_least:g}" if math.isfinite(at_least) else f"at most {at_most:g}"
        raise Failed(f"{figure}, expected {limit}")
    return figure
