"""Open a model that draws images for prompts while they are measured."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from wuerstchen.digests import file_digests
from wuerstchen.evaluation.distances.images import DrawnImages, prompts_digest
from wuerstchen.evaluation.distances.record import Setting
from wuerstchen.evaluation.inputs import open_pipeline
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.pipeline import PromptWarning
from wuerstchen.noise import check_seed


def open_drawing(
    folder: Path, prompts: Sequence[str], seed: int
) -> tuple[DrawnImages, dict[str, Setting]]:
    """Images of the model in `folder` with its default settings, and these for the protocol.

    Raises ModelFolderError, and ConfigError for a seed that is too large.
    """
    check_seed(seed, len(prompts))
    pipeline = open_pipeline(folder)
    plan = plan_generation(pipeline.info)
    weights = "".join(
        digest
        for part in sorted({path.parent for path in folder.rglob("*.safetensors")})
        for digest in file_digests(part.glob("*.safetensors")).values()
    )

    def draw(asked: Sequence[str], first: int) -> list[Image.Image]:
        with warnings.catch_warnings():
            # A caption that is too long for a text encoder is part of what is measured.
            warnings.simplefilter("ignore", PromptWarning)
            images = pipeline(list(asked), seed=first, output_type="pil").images
        return [image for image in images if isinstance(image, Image.Image)]

    about: dict[str, Setting] = {
        "model": pipeline.info.name,
        "model_weights": prompts_digest([weights]),
        "seeds": f"{seed} to {seed + len(prompts) - 1}",
    }
    for stage, sampling in (("prior", plan.prior), ("decoder", plan.decoder)):
        about |= {
            f"{stage}_sampler": sampling.sampler,
            f"{stage}_steps": sampling.steps,
            f"{stage}_guidance_scale": sampling.guidance.scale,
            f"{stage}_guidance_interval": "{} to {}".format(*sampling.guidance.interval),
            f"{stage}_guidance_rescale": sampling.guidance.rescale,
            f"{stage}_guidance_end": sampling.guidance.end,
        }
    identity = prompts_digest([weights, repr(plan)])
    return DrawnImages(draw, prompts, seed, identity), about
