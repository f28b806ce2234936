"""Forms of input and output, and arguments that cannot work."""

import warnings

import numpy as np
import pytest
import torch
from generated import PROMPT, pixels
from models_small import CHANNELS

from wuerstchen.errors import ConfigError, SizeError, WuerstchenError
from wuerstchen.inference.pipeline import PromptWarning


def test_the_forms_of_output_show_the_same_image(pipeline):
    tensor = pixels(pipeline)
    array = pipeline(PROMPT, seed=3, output_type="np").images
    (image,) = pipeline(PROMPT, seed=3).images
    np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert image.mode == "RGB" and image.size == (128, 128)
    assert np.abs(np.asarray(image) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6


def test_latents_are_the_input_of_stage_a(pipeline):
    latent = pipeline(PROMPT, seed=3, output_type="latent").images
    assert latent.shape == (1, 4, 32, 32)
    assert torch.equal(pipeline.cascade.image_from_latents(latent), pixels(pipeline))


def test_tensors_that_come_out_can_be_computed_with(pipeline):
    (pixels(pipeline).requires_grad_() * 2).sum().backward()


def test_the_output_is_an_object_and_a_tuple_that_starts_with_the_images(pipeline):
    output = pipeline(PROMPT, seed=3, return_dict=False)
    assert output[0] is output.images


@pytest.mark.parametrize(("height", "width"), [(128, 256), (256, 128), (384, 384)])
def test_images_have_the_requested_size(pipeline, height, width):
    assert pixels(pipeline, height=height, width=width).shape == (1, 3, height, width)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"height": 100},
            SizeError,
            "height must be .* multiple of 128 .* found 100; the nearest that fits is 128",
        ),
        ({"width": 0}, SizeError, "width must be .* found 0"),
        ({"latents": torch.zeros(1, CHANNELS, 4, 4)}, SizeError, r"\(1, 6, 3, 3\), found"),
        ({"prior_num_inference_steps": 0}, ConfigError, "at least 1, found 0"),
        ({"prior_timesteps": [1.0, 0.5, 0.5, 0.0]}, ConfigError, "must fall from 1"),
        ({"prior_timesteps": [0.5, 0.0]}, ConfigError, r"fall from 1 .*, found \[0.5, 0.0\]"),
        ({"decoder_timesteps": [1.0, 0.1]}, ConfigError, r"0 \(data\), found \[1.0, 0.1\]"),
        ({"decoder_timesteps": [1.5, 0.0]}, ConfigError, "must fall from 1"),
        ({"output_type": "jpg"}, ConfigError, "one of pil, np, pt, latent, found 'jpg'"),
        ({"prompt": None}, ConfigError, "found neither"),
        ({"prompt": []}, ConfigError, "empty list"),
        ({"prompt": ["a", 3]}, ConfigError, "must be text, found int"),
        ({"negative_prompt": ["a", "b"]}, ConfigError, "one for each of the 1 prompts, found 2"),
        ({"num_images_per_prompt": 0}, ConfigError, "at least 1, found 0"),
        ({"generator": [torch.Generator()] * 2}, ConfigError, "expected 1, found 2"),
        ({"prompt_embeds": torch.zeros(1, 5, 16)}, ConfigError, r"\(prompts, 12, 16\), found"),
        ({"negative_prompt_embeds": torch.zeros(0, 12, 16)}, ConfigError, r"found \(0, 12, 16\)"),
        (
            {"width": 896000000, "height": 896000000},
            WuerstchenError,
            "memory for images of 896000000 x .*, 1 at once",
        ),
    ],
)
def test_arguments_that_cannot_work_are_one_sentence(pipeline, arguments, error, words):
    with pytest.raises(error, match=words):
        pipeline(**{"prompt": PROMPT, **arguments})


def test_a_long_prompt_warns_with_the_part_that_is_ignored(pipeline):
    with pytest.warns(PromptWarning, match="'a yellow one'") as caught:
        pixels(pipeline, "a red apple a red apple a red apple a a yellow one")
    assert caught[0].filename.endswith("generated.py"), "the warning names the caller's line"


def test_a_prompt_that_fits_does_not_warn(pipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(pipeline, "a red apple a red apple a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_scale": float("nan")}, "guidance of Stage C must be a finite number"),
        ({"guidance_scale": float("inf")}, "guidance of Stage C must be a finite number"),
        ({"decoder_guidance_scale": float("nan")}, "guidance of Stage B must be"),
        ({"latents": torch.full((1, CHANNELS, 3, 3), float("nan"))}, "latents must hold finite"),
        (
            {"prompt_embeds": torch.full((1, 12, 16), float("inf"))},
            "prompt_embeds must hold finite",
        ),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"negative_prompt": [3]}, "A prompt must be text, found int"),
        ({"prompt": "a\udcffb"}, "must be UTF-8 text"),
        ({"negative_prompt": "a\udcffb"}, "must be UTF-8 text"),
    ],
)
def test_meaningless_values_are_refused(pipeline, changes, message):
    with pytest.raises(ConfigError, match=message):
        pipeline(**{"prompt": "a red heart", **changes})


def test_a_long_negative_prompt_is_named_too(pipeline):
    long = "blurred " * 60
    with pytest.warns(PromptWarning, match=r"The negative prompt 'blurred .*ignored"):
        pipeline(
            "a red heart",
            negative_prompt=long,
            seed=1,
            prior_num_inference_steps=1,
            num_inference_steps=1,
        )


def test_guidance_scale_is_another_name_of_the_priors(pipeline):
    assert torch.equal(
        pixels(pipeline, guidance_scale=2.0), pixels(pipeline, prior_guidance_scale=2.0)
    )
    with pytest.raises(ConfigError, match="give one, not both"):
        pipeline(PROMPT, guidance_scale=2.0, prior_guidance_scale=2.0)
