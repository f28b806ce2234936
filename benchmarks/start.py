"""Seconds from the start of a process to a saved image, with the bundled model.

`python -m benchmarks.start FOLDER OUT` generates with diffusers' combined pipeline, as a user's
script would; our own process is the command line.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.jobs import Job
from benchmarks.process import run_module
from benchmarks.records import Difference, Times, load
from benchmarks.timing import Work, alternate

PROMPT, SEED = "a red apple", 3
STEPS_C, STEPS_B, GUIDANCE = 60, 12, 4.0
LIKE_DIFFUSERS = (
    *("--steps", str(STEPS_C), "--decoder-steps", str(STEPS_B)),
    *("--guidance", str(GUIDANCE), "--guidance-interval", "0:1", "--guidance-rescale", "0"),
    *("--sampler", "ddpm", "--spacing", "time"),
    *("--decoder-sampler", "ddpm", "--decoder-spacing", "time"),
)
"""Options of our command for diffusers' default settings."""


def measure_start(job: Job) -> None:
    """Our defaults, our command with diffusers' settings, and diffusers."""
    from wuerstchen.inference.model_info import read_info
    from wuerstchen.weights import find

    if job.done("times", part="start", system="diffusers"):
        return
    folder = find(None)
    side = read_info(folder, "").size
    before = load()
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name, "ours.png"), Path(name, "theirs.png")
        call = f"{STEPS_C} + {STEPS_B}"
        works: dict[tuple[str, str], Work] = {
            ("ours", "defaults"): lambda: _generate(Path(name, "defaults.png")),
            ("ours", call): lambda: _generate(ours, *LIKE_DIFFUSERS),
            ("diffusers", call): lambda: run_module("benchmarks.start", str(folder), str(theirs)),
        }
        for (system, steps), seconds in alternate(works, job.repeats).items():
            what = {"system": system, "part": "start", "call": steps, "side": side, "rows": 1}
            job.keep(Times.model_validate({**what, "seconds": seconds, "load": before}))
        largest = _largest_pixel_difference(ours, theirs)
        text = f"pixels (0 to 255) of the bundled model, {call} steps"
        job.keep(Difference(what=text, side=side, dtype="uint8", largest=largest, scale=255))


def generate_with_diffusers(folder: str, out: str) -> None:
    """One image, as a short script would generate it."""
    import torch
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    pipeline = WuerstchenCombinedPipeline.from_pretrained(folder)
    pipeline.prior_pipe.set_progress_bar_config(disable=True)
    pipeline.decoder_pipe.set_progress_bar_config(disable=True)
    side = 128  # of the bundled model; diffusers' own default is 512
    images = pipeline(
        PROMPT,
        height=side,
        width=side,
        prior_num_inference_steps=STEPS_C,
        num_inference_steps=STEPS_B,
        prior_guidance_scale=GUIDANCE,
        decoder_guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(SEED)],
    ).images
    images[0].save(out)


def _generate(out: Path, *options: str) -> None:
    run_module("wuerstchen", "generate", PROMPT, "--seed", str(SEED), "--out", str(out), *options)


def _largest_pixel_difference(first: Path, second: Path) -> float:
    import numpy as np
    from PIL import Image

    images = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (first, second)]
    return float(np.abs(images[0] - images[1]).max())


if __name__ == "__main__":
    generate_with_diffusers(sys.argv[1], sys.argv[2])
