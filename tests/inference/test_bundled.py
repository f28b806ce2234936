"""The bundled model: small enough, and open to diffusers (tests/cli has its command)."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from wuerstchen import Pipeline
from wuerstchen.inference.sampling import SamplingPlan

FOLDER = Path(str(files("wuerstchen"))) / "bundled" / "emoji"
PROMPT = "a 3D emoji of a red apple"


def test_it_has_at_most_40_megabytes():
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert 1e5 < total <= 40e6


def test_its_semantics_are_at_least_16_times_smaller_per_side():
    pipeline = Pipeline.from_pretrained()
    side = pipeline.info.size
    text = pipeline.cascade.encode(pipeline.cascade.text_c, [PROMPT])
    semantics = pipeline.cascade.semantics_from_text(
        text, torch.randn_like, (side, side), SamplingPlan(times=[1.0, 0.0])
    )
    assert side >= 128 and side / max(semantics.shape[2:]) >= 16


@pytest.mark.filterwarnings("ignore")  # diffusers' own, about deprecation
def test_diffusers_makes_the_same_image_from_the_same_noise():
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    theirs = WuerstchenCombinedPipeline.from_pretrained(FOLDER)
    ours = Pipeline.from_pretrained(FOLDER)
    arguments = {
        "height": ours.info.size,
        "width": ours.info.size,
        "prior_num_inference_steps": 8,
        "num_inference_steps": ours.info.defaults.decoder.steps,
        "prior_guidance_scale": ours.info.defaults.prior.guidance_scale,
        "decoder_guidance_scale": ours.info.defaults.decoder.guidance_scale,
        "output_type": "np",
    }
    generators = [torch.Generator().manual_seed(1)]
    expected = theirs(PROMPT, generator=generators, **arguments).images
    found = ours(
        PROMPT,
        seed=1,
        prior_sampler="ddpm",
        prior_spacing="time",
        prior_guidance_interval=(0.0, 1.0),
        decoder_sampler="ddpm",
        decoder_spacing="time",
        **arguments,
    ).images
    assert np.abs(found - expected).mean() < 1 / 255
