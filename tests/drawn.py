"""Images of the small model, as numbers to compare."""

from torch import Tensor

from wuerstchen.inference.pipeline import Pipeline

PROMPT = "a red apple"
STEPS_C, STEPS_B = 6, 4
"""What the small model does by default."""


def pixels(pipeline: Pipeline, prompt: str | list[str] = PROMPT, **arguments: object) -> Tensor:
    """(B, 3, H, W), with seed 3 unless said otherwise."""
    if "generator" not in arguments:
        arguments.setdefault("seed", 3)
    images = pipeline(prompt, output_type="pt", **arguments).images  # type: ignore[arg-type]
    assert isinstance(images, Tensor)
    return images


def difference(first: Tensor, second: Tensor) -> float:
    """In the mean, of two images."""
    return float((first.double() - second.double()).abs().mean())
