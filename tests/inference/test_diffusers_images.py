"""Equal images from diffusers' combined pipeline, from the same noise."""

import pytest
import torch
from generated import PROMPT, difference
from models_small import CHANNELS


@pytest.mark.filterwarnings("ignore")  # diffusers' own, about deprecation
@pytest.mark.parametrize(
    ("scale", "decoder_scale", "negative", "size"),
    [(4.0, 0.0, None, (128, 128)), (1.0, 2.5, "two birds", (256, 128))],
)
def test_diffusers_makes_the_same_image_from_the_same_noise(
    pipeline, folder, scale, decoder_scale, negative, size
):
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    theirs = WuerstchenCombinedPipeline.from_pretrained(folder)
    theirs.prior_pipe.set_progress_bar_config(disable=True)
    theirs.decoder_pipe.set_progress_bar_config(disable=True)
    arguments = {
        "negative_prompt": negative,
        "height": size[0],
        "width": size[1],
        "prior_num_inference_steps": 8,
        "num_inference_steps": 5,
        "prior_guidance_scale": scale,
        "decoder_guidance_scale": decoder_scale,
        "output_type": "pt",
    }
    generators = [torch.Generator().manual_seed(3)]
    expected = theirs(PROMPT, generator=generators, **arguments).images
    found = pipeline(PROMPT, seed=3, **arguments).images
    assert found.std() > 0.1, "an empty image proves nothing"
    assert difference(found, expected) < 1e-4

    start = torch.randn(1, CHANNELS, *(side // 128 * 3 for side in size))
    generators = [torch.Generator().manual_seed(3)]
    expected = theirs(PROMPT, generator=generators, latents=start, **arguments).images
    found = pipeline(PROMPT, seed=3, latents=start, **arguments).images
    assert difference(found, expected) < 1e-4
