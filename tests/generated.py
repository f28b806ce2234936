"""Images of the small model, as tensors to compare."""

from torch import Tensor

from wuerstchen.inference.pipeline import Pipeline

PROMPT = "a red apple"
STEPS_C, STEPS_B = 6, 4
"""Default steps of the small model."""


def pixels(pipeline: Pipeline, prompt: str | list[str] = PROMPT, **arguments: object) -> Tensor:
    """(B, 3, H, W), with seed 3 by default."""
    if "generator" not in arguments:
        arguments.setdefault("seed", 3)
    images = pipeline(prompt, output_type="pt", **arguments).images  # type: ignore[arg-type]
    assert isinstance(images, Tensor)
    return images


def difference(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of two images."""
    return float((first.double() - second.double()).abs().mean())
