"""The noise that an image is made from."""

from itertools import combinations

import numpy as np
import pytest
import torch
from generated import PROMPT, difference, pixels
from models_small import CHANNELS
from torch import Tensor

from wuerstchen import noise
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


def test_the_global_generator_of_torch_is_neither_used_nor_advanced(pipeline):
    torch.manual_seed(1)
    first = pixels(pipeline)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, pixels(pipeline))


def test_a_fresh_generator_reports_its_seed_and_others_report_none(pipeline):
    generator = torch.Generator().manual_seed(3)
    first = pipeline(PROMPT, generator=generator, output_type="pt")
    assert first.seeds == [3] and torch.equal(first.images, pixels(pipeline))
    assert pipeline(PROMPT, generator=generator).seeds == [None], "used before"
    fresh = torch.Generator().manual_seed(3)
    assert pipeline(PROMPT, num_images_per_prompt=2, generator=fresh).seeds == [None, None]
    twice = [torch.Generator().manual_seed(3)] * 2
    assert pipeline(PROMPT, num_images_per_prompt=2, generator=twice).seeds == [None, None]


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1, 2**32 + 3])
def test_the_reported_seed_of_a_generator_makes_the_image_again(pipeline, seed):
    generator = torch.Generator().manual_seed(seed)
    images, (reported,) = pipeline(PROMPT, generator=generator, output_type="pt")
    assert torch.equal(images, pixels(pipeline, seed=reported))


LARGE = [3, 2**32 + 3, 2**33 + 3, 3 * 2**32 + 3, 2**62 + 3, 2**63 - 1]
"""Seeds of which torch reads the same lower 32 bits, or all but the highest."""


def test_every_seed_has_its_own_image_and_reports_it(pipeline):
    made = {seed: pipeline(PROMPT, seed=seed, output_type="pt") for seed in LARGE}
    assert [result.seeds for result in made.values()] == [[seed] for seed in LARGE]
    for one, other in combinations(made.values(), 2):
        assert difference(one.images, other.images) > 0.05


@pytest.mark.parametrize("seed", [2**32 - 2, 2**63 - 3])
def test_image_k_is_that_of_seed_plus_k_across_and_up_to_the_largest(double, seed):
    batch = pixels(double, seed=seed, num_images_per_prompt=3)
    for k in range(3):
        alone = pixels(double, seed=seed + k)
        torch.testing.assert_close(batch[k : k + 1], alone, atol=1e-7, rtol=0)


def test_streams_of_seeds_below_32_bits_are_those_of_torch():
    for seed in (0, 3, 2**31, 2**32 - 1):
        expected = torch.randn(64, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.randn(64, generator=noise.generator_of(seed)), expected)


def test_streams_of_larger_seeds_are_those_of_mt19937_initialised_by_both_halves():
    for seed in LARGE[1:]:
        theirs = np.random.RandomState([seed % 2**32, seed // 2**32])
        expected = theirs.randint(0, 2**32, 1300, dtype=np.uint32) % 2**31
        found = torch.empty(1300, dtype=torch.int32).random_(generator=noise.generator_of(seed))
        assert found.tolist() == expected.tolist()


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
