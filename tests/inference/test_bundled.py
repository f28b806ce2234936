"""The model that comes with the package: small enough, drawn by one command, open to diffusers."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wuerstchen import Pipeline
from wuerstchen.inference.sampling import SamplingPlan

FOLDER = Path(str(files("wuerstchen"))) / "bundled" / "emoji"
PROMPT = "a 3D emoji of a red apple"


def test_it_takes_at_most_40_megabytes():
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert 1e5 < total <= 40e6


def test_the_command_draws_with_it_where_no_model_is_named(tmp_path):
    command = Path(sys.executable).with_name("wuerstchen")
    done = subprocess.run(
        [command, "generate", PROMPT, "--seed", "1", "--out", "apple.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "apple.png\n"
    with Image.open(tmp_path / "apple.png") as image:
        assert min(image.size) >= 128
        assert np.asarray(image).std() > 10, "an even colour is no image"
        assert "Model: emoji" in image.text["parameters"]


def test_its_semantics_are_at_least_16_times_smaller_per_side():
    pipeline = Pipeline.from_pretrained()
    side = pipeline.default_size
    text = pipeline.cascade.encode(pipeline.cascade.text_c, [PROMPT])
    semantics = pipeline.cascade.semantics_from_text(
        text, torch.randn_like, (side, side), SamplingPlan(times=[1.0, 0.0])
    )
    assert side >= 128 and side / max(semantics.shape[2:]) >= 16


@pytest.mark.filterwarnings("ignore")  # diffusers' own, about deprecation
@pytest.mark.parametrize("seed", [1, 2])
def test_diffusers_draws_the_same_image_from_the_same_noise(seed):
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    theirs = WuerstchenCombinedPipeline.from_pretrained(FOLDER)
    ours = Pipeline.from_pretrained(FOLDER)
    arguments = {
        "height": ours.default_size,
        "width": ours.default_size,
        "prior_num_inference_steps": 20,
        "num_inference_steps": ours.info.defaults.decoder.steps,
        "prior_guidance_scale": ours.info.defaults.prior.guidance_scale,
        "decoder_guidance_scale": ours.info.defaults.decoder.guidance_scale,
        "output_type": "np",
    }
    generators = [torch.Generator().manual_seed(seed)]
    expected = theirs(PROMPT, generator=generators, **arguments).images
    found = ours(
        PROMPT,
        seed=seed,
        prior_sampler="ddpm",
        prior_spacing="time",
        prior_guidance_interval=(0.0, 1.0),
        decoder_sampler="ddpm",
        decoder_spacing="time",
        **arguments,
    ).images
    assert np.abs(found - expected).mean() < 1 / 255
