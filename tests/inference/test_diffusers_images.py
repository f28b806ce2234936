"""Equal images from diffusers' combined pipeline and its decoder, from the same noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from generated import PROMPT, difference
from models_small import CHANNELS
from torch import Generator, Tensor

from wuerstchen.errors import ConfigError, SizeError

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, about deprecation

Arguments = dict[str, object]


@pytest.fixture(scope="module")
def theirs(folder: Path):
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    opened = WuerstchenCombinedPipeline.from_pretrained(folder)
    opened.prior_pipe.set_progress_bar_config(disable=True)
    opened.decoder_pipe.set_progress_bar_config(disable=True)
    return opened


def seeded(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


def start(generator: Generator | None = None, count: int = 1) -> Tensor:
    return torch.randn(count, CHANNELS, 3, 3, generator=generator)


@pytest.mark.parametrize(
    ("scale", "decoder_scale", "negative", "size"),
    [(4.0, 0.0, None, (128, 128)), (1.0, 2.5, "two birds", (256, 128))],
)
def test_diffusers_makes_the_same_image_from_the_same_noise(
    pipeline, theirs, scale, decoder_scale, negative, size
):
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
    expected = theirs(PROMPT, generator=[seeded()], **arguments).images
    found = pipeline(PROMPT, seed=3, **arguments).images
    assert found.std() > 0.1, "an empty image proves nothing"
    assert difference(found, expected) < 1e-4

    latents = torch.randn(1, CHANNELS, *(side // 128 * 3 for side in size))
    expected = theirs(PROMPT, generator=[seeded()], latents=latents, **arguments).images
    found = pipeline(PROMPT, seed=3, latents=latents, **arguments).images
    assert difference(found, expected) < 1e-4


def used_for_latents() -> Arguments:
    generator = seeded()
    return {"latents": start(generator), "generator": generator}


def used_for_two_latents() -> Arguments:
    generator = seeded()
    return {
        "latents": start(generator, 2),
        "generator": generator,
        "num_images_per_prompt": 2,
    }


def used_before(place: str = "alone") -> Arguments:
    generator = seeded()
    torch.randn(5, generator=generator)
    return {"generator": [generator] if place == "list" else generator}


def listed_twice() -> Arguments:
    return {"generator": [seeded()] * 2, "num_images_per_prompt": 2}


IDIOMS: dict[str, Callable[[], Arguments]] = {
    "one for one image": lambda: {"generator": seeded()},
    "one for several images": lambda: {"generator": seeded(), "num_images_per_prompt": 3},
    "a list": lambda: {"generator": [seeded(3), seeded(9)], "num_images_per_prompt": 2},
    "a list of one for several images": lambda: {
        "generator": [seeded()],
        "num_images_per_prompt": 2,
    },
    "the same one twice": listed_twice,
    "used before": used_before,
    "used before, in a list": lambda: used_before("list"),
    "latents of the generator": used_for_latents,
    "latents of the generator for two images": used_for_two_latents,
    "a seed above 32 bits": lambda: {"generator": seeded(2**40 + 3)},
}


@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=list(IDIOMS))
def test_every_way_to_pass_generators_makes_diffusers_images(pipeline, theirs, idiom):
    arguments = {
        "height": 128,
        "width": 128,
        "prior_num_inference_steps": 3,
        "num_inference_steps": 2,
        "prior_guidance_scale": 1.0,
        "output_type": "pt",
    }
    expected = theirs(PROMPT, **arguments, **idiom()).images
    found = pipeline(PROMPT, **arguments, **idiom()).images
    assert found.shape == expected.shape
    assert difference(found, expected) < 1e-4


def test_a_generator_is_left_where_diffusers_leaves_it(pipeline, theirs):
    ours, other = seeded(), seeded()
    for made, generator in ((pipeline, ours), (theirs, other)):
        made(
            PROMPT,
            height=128,
            width=128,
            prior_num_inference_steps=3,
            num_inference_steps=2,
            generator=generator,
        )
    assert torch.equal(ours.get_state(), other.get_state())


@pytest.mark.parametrize(
    ("scale", "negative", "cells"), [(0.0, None, (3, 3)), (2.5, "two birds", (6, 3))]
)
@pytest.mark.parametrize("latents", [False, True])
def test_image_embeddings_make_the_images_of_diffusers_decoder(
    pipeline, theirs, scale, negative, cells, latents
):
    semantics = torch.randn(2, CHANNELS, *cells, generator=seeded(0))
    noise = torch.randn(2, 4, *(32 * side // 3 for side in cells), generator=seeded(1))
    common = {"num_inference_steps": 3, "negative_prompt": negative, "output_type": "pt"}
    common |= {"latents": noise} if latents else {}
    expected = theirs.decoder_pipe(
        semantics, PROMPT, guidance_scale=scale, generator=seeded(), **common
    ).images
    found = pipeline(
        PROMPT,
        image_embeddings=semantics,
        decoder_guidance_scale=scale,
        generator=seeded(),
        **common,
    ).images
    assert found.std() > 0.1 and difference(found[:1], found[1:]) > 0.01
    assert difference(found, expected) < 1e-4


def test_the_output_of_diffusers_prior_makes_the_image_of_the_combined_pipeline(pipeline, theirs):
    settings = {"num_inference_steps": 3, "guidance_scale": 2.0, "generator": seeded()}
    size = {"height": 128, "width": 128}
    semantics = theirs.prior_pipe(PROMPT, **size, **settings).image_embeddings
    found = pipeline(PROMPT, image_embeddings=semantics, generator=settings["generator"])
    whole = pipeline(PROMPT, seed=3, prior_num_inference_steps=3, guidance_scale=2.0)
    first, second = (np.asarray(result.images[0], dtype=float) for result in (found, whole))
    assert np.abs(first - second).mean() < 0.1


def test_image_embeddings_are_taken_in_every_form_of_diffusers(pipeline):
    semantics = torch.randn(2, CHANNELS, 3, 3, generator=seeded(0))
    forms = (semantics, list(semantics[:, None]), semantics.numpy(), semantics.double())
    made = [
        pipeline(PROMPT, image_embeddings=form, seed=3, output_type="pt").images for form in forms
    ]
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_every_image_embedding_has_its_own_prompt_and_number_of_images(pipeline):
    semantics = torch.randn(2, CHANNELS, 3, 3, generator=seeded(0))
    prompts = [PROMPT, "a green hat"]
    settings = {"seed": 3, "output_type": "pt"}
    both = pipeline(prompts, image_embeddings=semantics, num_images_per_prompt=2, **settings)
    assert both.seeds == [3, 4, 5, 6]
    alone = pipeline(prompts[1], image_embeddings=semantics[1:], seed=5, output_type="pt")
    assert difference(both.images[2:3], alone.images) < 1e-5


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"image_embeddings": torch.zeros(1, 16, 3, 3)}, SizeError, r"\(images, 6, h, w\).*found"),
        ({"image_embeddings": torch.zeros(1, 6, 4, 3)}, SizeError, r"found \(1, 6, 4, 3\)"),
        ({"image_embeddings": torch.zeros(6, 3, 3)}, SizeError, r"found \(6, 3, 3\)"),
        ({"image_embeddings": torch.zeros(0, 6, 3, 3)}, SizeError, r"found \(0, 6, 3, 3\)"),
        ({"image_embeddings": []}, ConfigError, "list of tensors"),
        ({"image_embeddings": "semantics.pt"}, ConfigError, "a tensor, an array, or a list"),
        ({"image_embeddings": torch.zeros(1, 6, 3, 3).long()}, ConfigError, "floating-point"),
        ({"image_embeddings": torch.full((1, 6, 3, 3), float("nan"))}, ConfigError, "finite"),
        ({"height": 256}, SizeError, "height must be that of the image_embeddings, 128"),
        ({"prompt": ["a", "b"]}, ConfigError, "image_embeddings must have a row for each of the 2"),
        ({"prior_sampler": "ddim"}, ConfigError, "Stage C, which would read prior_sampler"),
        ({"guidance_scale": 2.0}, ConfigError, "would read guidance_scale"),
        ({"latents": torch.zeros(1, 6, 3, 3)}, SizeError, r"of Stage B, \(1, 4, 32, 32\), found"),
    ],
)
def test_image_embeddings_that_cannot_work_are_one_sentence(pipeline, changes, error, words):
    good = {"prompt": PROMPT, "image_embeddings": torch.zeros(1, CHANNELS, 3, 3)}
    with pytest.raises(error, match=words):
        pipeline(**(good | changes))
