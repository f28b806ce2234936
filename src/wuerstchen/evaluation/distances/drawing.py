"""Open a model that draws images for prompts while they are measured."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from wuerstchen import weights
from wuerstchen.digests import files_digest
from wuerstchen.evaluation.distances.images import DrawnImages
from wuerstchen.evaluation.distances.record import Setting
from wuerstchen.evaluation.inputs import drawing
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.pipeline import Pipeline, PromptWarning
from wuerstchen.noise import check_seed


def open_drawing(
    folder: Path, prompts: Sequence[str], seed: int
) -> tuple[DrawnImages, dict[str, Setting]]:
    """Images of a model with its default settings, and these for the protocol.

    folder  of the model, or its file; a prior that its README.md names may be elsewhere

    Raises ModelFolderError, and ConfigError for a seed that is too large.
    """
    check_seed(seed, len(prompts))
    files = weights.resolve(folder)
    pipeline = Pipeline.from_files(files).to("cuda" if torch.cuda.is_available() else "cpu")
    plan = plan_generation(pipeline.info)
    paths = dict.fromkeys(path for part in files.components() for path in part.paths())
    identity = files_digest(paths)  # each once, where one file has several components

    draw_all = drawing(pipeline)

    def draw(asked: Sequence[str], first: int) -> Sequence[Image.Image]:
        with warnings.catch_warnings():
            # A caption that is too long for a text encoder is part of what is measured.
            warnings.simplefilter("ignore", PromptWarning)
            return draw_all(asked, first)

    about: dict[str, Setting] = {
        "model": pipeline.info.name,
        "model_weights": identity,
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
    return DrawnImages(draw, prompts, seed, f"{identity} {plan!r}"), about
