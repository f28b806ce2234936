"""The noise that an image is made from."""

import pytest
import torch
from generated import PROMPT, difference, pixels
from models_small import CHANNELS
from torch import Tensor

from wuerstchen.diffusion import SAMPLERS
from wuerstchen.errors import ConfigError


def test_equal_seeds_make_equal_images_and_others_do_not(pipeline):
    assert torch.equal(pixels(pipeline), pixels(pipeline))
    assert difference(pixels(pipeline), pixels(pipeline, seed=4)) > 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_image_k_of_a_batch_is_the_image_of_seed_plus_k_alone(double, sampler):
    settings = {
        "prior_sampler": sampler,
        "decoder_sampler": sampler,
        "prior_num_inference_steps": 3,
        "num_inference_steps": 3,
        "prior_guidance_scale": 3.0,
        "prior_guidance_rescale": 0.7,
    }
    batch = pixels(double, num_images_per_prompt=3, **settings)
    assert torch.equal(batch, pixels(double, num_images_per_prompt=3, **settings))
    for k in range(3):
        alone = pixels(double, seed=3 + k, **settings)
        torch.testing.assert_close(batch[k : k + 1], alone, atol=1e-7, rtol=0)
        assert difference(batch[k - 1 : k or None], alone) > 0.01


def test_prompts_of_a_list_are_generated_as_if_alone_the_first_one_first(double):
    batch = pixels(double, ["a red apple", "a green hat"], num_images_per_prompt=2)
    assert len(batch) == 4
    torch.testing.assert_close(batch[1:2], pixels(double, seed=4), atol=1e-7, rtol=0)
    torch.testing.assert_close(batch[2:3], pixels(double, "a green hat", seed=5), atol=1e-7, rtol=0)


def test_every_image_reports_its_seed(pipeline):
    assert pipeline(PROMPT, seed=7, num_images_per_prompt=2).seeds == [7, 8]


@pytest.mark.parametrize("seed", [None, -1])
def test_a_random_seed_is_reported_and_makes_the_image_again(pipeline, seed):
    images, seeds = pipeline(PROMPT, seed=seed, output_type="pt")
    assert torch.equal(images, pixels(pipeline, seed=seeds[0]))
    assert pipeline(PROMPT, seed=seed).seeds != seeds


def test_a_list_of_generators_is_the_same_as_their_seeds(pipeline):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert torch.equal(
        pixels(pipeline, num_images_per_prompt=2, generator=generators),
        pixels(pipeline, num_images_per_prompt=2),
    )


def test_one_generator_for_several_images_reports_seeds_that_make_each_again(double):
    generator = torch.Generator().manual_seed(0)
    images, seeds = double(PROMPT, num_images_per_prompt=2, generator=generator, output_type="pt")
    torch.testing.assert_close(images[1:], pixels(double, seed=seeds[1]), atol=1e-7, rtol=0)


def test_the_global_generator_of_torch_is_neither_used_nor_advanced(pipeline):
    torch.manual_seed(1)
    first = pixels(pipeline)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, pixels(pipeline))


def test_a_used_generator_reports_a_seed_that_makes_the_image_again(pipeline):
    generator = torch.Generator().manual_seed(3)
    first = pipeline(PROMPT, generator=generator, output_type="pt")
    assert first.seeds == [3] and torch.equal(first.images, pixels(pipeline))
    second = pipeline(PROMPT, generator=generator, output_type="pt")
    third = pipeline(PROMPT, generator=[generator], output_type="pt")
    assert len({*first.seeds, *second.seeds, *third.seeds}) == 3
    for images, (seed,) in (second, third):
        assert torch.equal(images, pixels(pipeline, seed=seed))


def test_a_generator_listed_twice_reports_seeds_that_make_each_image_again(double):
    generators = [torch.Generator().manual_seed(3)] * 2
    images, seeds = double(PROMPT, num_images_per_prompt=2, generator=generators, output_type="pt")
    for k, seed in enumerate(seeds):
        torch.testing.assert_close(images[k : k + 1], pixels(double, seed=seed), atol=1e-7, rtol=0)


def test_given_start_noise_replaces_the_first_noise(pipeline):
    def after_one_step(
        **arguments: object,
    ) -> Tensor:  # the only one of Stage C, so no noise follows
        seen: list[Tensor] = []
        pixels(
            pipeline,
            prior_num_inference_steps=1,
            prior_callback_on_step_end=lambda *step: seen.append(step[3]["latents"].clone()),
            **arguments,
        )
        return seen[0]

    start = torch.randn(1, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(after_one_step(latents=start, seed=8), after_one_step(seed=3))


@pytest.mark.parametrize("seed", [-2, 2**63])
def test_a_seed_out_of_range_is_an_error(pipeline, seed):
    with pytest.raises(ConfigError, match=r"seed must be a whole number between 0 and \d+.*found"):
        pipeline(PROMPT, seed=seed)
