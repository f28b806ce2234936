"""Seconds from the start of a process to a saved image, with the bundled model.

`python -m benchmarks.start FOLDER OUT SIDE` generates with diffusers' combined pipeline, as a
user's script would; our own process is the command line. diffusers only knows networks that predict
the noise, so it is compared on a copy whose networks are taken to do so: other images, equal work.
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
    side = read_info(find(None), "").size
    before = load()
    with tempfile.TemporaryDirectory() as name:
        folder = _predicting_noise(Path(name, "model"))
        like = (*LIKE_DIFFUSERS, "--model", str(folder))
        ours, theirs = Path(name, "ours.png"), Path(name, "theirs.png")
        call = f"{STEPS_C} + {STEPS_B}"
        works: dict[tuple[str, str], Work] = {
            ("ours", "defaults"): lambda: _generate(Path(name, "defaults.png")),
            ("ours", call): lambda: _generate(ours, *like),
            ("diffusers", call): lambda: run_module(
                "benchmarks.start", str(folder), str(theirs), str(side)
            ),
        }
        for (system, steps), seconds in alternate(works, job.repeats).items():
            what = {"system": system, "part": "start", "call": steps, "side": side, "rows": 1}
            job.keep(Times.model_validate({**what, "seconds": seconds, "load": before}))
        largest = _largest_pixel_difference(ours, theirs)
        text = f"pixels (0 to 255) of the bundled networks, {call} steps"
        job.keep(Difference(what=text, side=side, dtype="uint8", largest=largest, scale=255))


def generate_with_diffusers(folder: str, out: str, side: int) -> None:
    """One image, as a short script would generate it."""
    import torch
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    pipeline = WuerstchenCombinedPipeline.from_pretrained(folder)
    pipeline.prior_pipe.set_progress_bar_config(disable=True)
    pipeline.decoder_pipe.set_progress_bar_config(disable=True)
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


def _predicting_noise(folder: Path) -> Path:
    """A copy of the bundled model in the classes of diffusers."""
    import shutil

    from wuerstchen import weights
    from wuerstchen.models.stage_b import StageB
    from wuerstchen.models.stage_c import StageC

    source = weights.find(None)
    shutil.copytree(source, folder)
    stage_b, stage_c = weights.stage_b.load(source), weights.stage_c.load(source)
    as_noise = {"predicts": "noise"}
    plain_b = StageB(stage_b.config.model_copy(update=as_noise))
    plain_b.load_state_dict(stage_b.state_dict())
    plain_c = StageC(stage_c.config.model_copy(update=as_noise))
    plain_c.load_state_dict(stage_c.state_dict())
    weights.stage_b.save(folder, plain_b)
    weights.stage_c.save(folder, plain_c)
    weights.write_index(folder)
    return folder


def _generate(out: Path, *options: str) -> None:
    run_module(
        "wuerstchen",
        "generate",
        PROMPT,
        "--seed",
        str(SEED),
        "--out",
        str(out),
        "--overwrite",
        *options,
    )


def _largest_pixel_difference(first: Path, second: Path) -> float:
    import numpy as np
    from PIL import Image

    images = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (first, second)]
    return float(np.abs(images[0] - images[1]).max())


if __name__ == "__main__":
    generate_with_diffusers(sys.argv[1], sys.argv[2], int(sys.argv[3]))
