"""From the start of a process to an image on the disk, with the bundled model.

`python -m benchmarks.start FOLDER OUT` draws with diffusers' combined pipeline, as a script of a
user would; our own process is the command line.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.jobs import Job
from benchmarks.records import ROOT, Difference, Times, load
from benchmarks.timing import alternate

PROMPT, SEED = "a red apple", 3
STEPS_C, STEPS_B, GUIDANCE = 60, 12, 4.0
LIKE_DIFFUSERS = (
    *("--steps", str(STEPS_C), "--decoder-steps", str(STEPS_B)),
    *("--guidance", str(GUIDANCE), "--guidance-interval", "0:1", "--guidance-rescale", "0"),
    *("--sampler", "ddpm", "--spacing", "time"),
    *("--decoder-sampler", "ddpm", "--decoder-spacing", "time"),
)
"""Words of our command that ask for diffusers' default settings."""


def measure_start(job: Job) -> None:
    """Our defaults, our command with diffusers' settings, and diffusers."""
    from wuerstchen.inference.model_info import find, read_info

    if job.done("times", part="start", system="diffusers"):
        return
    folder = find(None)
    side = read_info(folder, "").size
    before = load()
    with tempfile.TemporaryDirectory() as made:
        commands = {
            "ours, defaults": _ours(Path(made, "defaults.png")),
            "ours": _ours(Path(made, "ours.png"), *LIKE_DIFFUSERS),
            "diffusers": _python("benchmarks.start", str(folder), str(Path(made, "theirs.png"))),
        }
        works = {name: (lambda words=words: _run(words)) for name, words in commands.items()}
        for name, seconds in alternate(works, job.repeats).items():
            system, _, word = name.partition(", ")
            call = word or f"{STEPS_C} + {STEPS_B}"
            job.keep(
                Times(
                    system=system,
                    part="start",
                    call=call,
                    side=side,
                    rows=1,
                    seconds=seconds,
                    load=before,
                )
            )
        largest = _pixels_apart(Path(made, "ours.png"), Path(made, "theirs.png"))
        what = f"pixels (0 to 255) of the bundled model, {STEPS_C} + {STEPS_B} steps"
        job.keep(Difference(what=what, side=side, dtype="uint8", largest=largest, scale=255))


def draw_with_diffusers(folder: str, out: str) -> None:
    """One image, as a short script would do it."""
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


def _ours(out: Path, *words: str) -> list[str]:
    return _python("wuerstchen", "generate", PROMPT, "--seed", str(SEED), "--out", str(out), *words)


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", module, *words]


def _run(words: list[str]) -> None:
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")


def _pixels_apart(first: Path, second: Path) -> float:
    import numpy as np
    from PIL import Image

    images = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (first, second)]
    return float(np.abs(images[0] - images[1]).max())


if __name__ == "__main__":
    draw_with_diffusers(sys.argv[1], sys.argv[2])
