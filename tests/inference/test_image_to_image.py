"""Images changed as a whole, and reconstructed: laws at the ends of both strengths."""

import numpy as np
import pytest
import torch
from generated import PROMPT, difference, pixels
from models_small import small_pipeline
from PIL import Image

from wuerstchen.diffusion import add_noise
from wuerstchen.errors import ConfigError, SizeError
from wuerstchen.geometry import scale_semantics
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.inference.source_data import SourceData
from wuerstchen.models.compressor import shrink

TWO = [Image.new("RGB", (128, 128))] * 2


@pytest.fixture(scope="module")
def source() -> Image.Image:
    """128 x 128 pixels with every level of grey."""
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((128, 128), Image.Resampling.BICUBIC)


def tensor_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


def test_with_both_strengths_0_the_image_is_that_of_stage_a(pipeline, source):
    with torch.inference_mode():
        stage_a = pipeline.cascade.stage_a
        expected = stage_a.decode(stage_a.encode(tensor_of(source)))
    assert torch.equal(pixels(pipeline, image=source, strength=0, decoder_strength=0), expected)
    assert torch.equal(pixels(pipeline, image=source, decoder_strength=0), expected)


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++2m", "euler-ancestral"])
def test_with_both_strengths_1_the_image_is_that_of_the_text_alone(pipeline, source, sampler):
    settings = {"prior_sampler": sampler, "decoder_sampler": sampler, "guidance_scale": 3.0}
    changed = pixels(pipeline, image=source, strength=1, decoder_strength=1, **settings)
    assert torch.equal(changed, pixels(pipeline, **settings))


def test_with_strength_0_the_semantics_are_those_of_the_compressor(pipeline, source):
    with torch.inference_mode():
        semantics = pipeline.cascade.compressor(shrink(tensor_of(source)))
    expected = pixels(pipeline, image_embeddings=semantics)
    assert torch.equal(pixels(pipeline, image=source, strength=0, decoder_strength=1), expected)


def test_the_stages_start_from_the_noisy_source_at_their_strengths(pipeline, source):
    seen = {}

    def keep(name: str):
        def callback(pipe: Pipeline, step: int, t: float, tensors: dict[str, torch.Tensor]) -> None:
            seen.setdefault(name, []).append(t)

        return callback

    pixels(
        pipeline,
        image=source,
        strength=0.6,
        decoder_strength=0.4,
        prior_timesteps=[1.0, 0.7, 0.6, 0.3, 0.0],
        decoder_timesteps=[1.0, 0.5, 0.25, 0.0],
        prior_callback_on_step_end=keep("c"),
        callback_on_step_end=keep("b"),
    )
    assert seen == {"c": [0.6, 0.3], "b": [0.4, 0.25]}


def test_the_start_is_the_data_with_the_noise_of_that_time():
    data, noise = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    for t in (0.2, 0.7):
        expected = add_noise(data, noise, torch.full((1,), t, dtype=torch.float64))
        torch.testing.assert_close(SourceData(data=data, strength=t).start(noise), expected)


def test_more_strength_leads_further_from_the_source(pipeline, source):
    for name, other in (("strength", {}), ("decoder_strength", {"strength": 0.5})):
        far = [
            difference(pixels(pipeline, image=source, **{name: s}, **other), tensor_of(source))
            for s in (0.05, 0.4, 1.0)
        ]
        assert len(set(far)) == 3, name
    kept = pixels(pipeline, image=source, strength=0.5, decoder_strength=0.02)
    exact = pixels(pipeline, image=source, decoder_strength=0)
    assert difference(kept, exact) < difference(pixels(pipeline, image=source), exact)


def test_forms_of_input_make_the_same_image(pipeline, source):
    expected = pixels(pipeline, image=source, strength=0.5)
    array = np.asarray(source)
    for form in (array, array.astype(np.float32) / 255, array[None], tensor_of(source), [source]):
        assert torch.equal(pixels(pipeline, image=form, strength=0.5), expected)


def test_each_prompt_may_have_its_image_and_all_may_have_one(double, source):
    mirrored = source.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    prompts = ["a red apple", "a green hat"]
    both = pixels(double, prompts, image=[source, mirrored], strength=0.5)
    second = pixels(double, "a green hat", image=mirrored, strength=0.5, seed=4)
    torch.testing.assert_close(both[1:], second, atol=1e-7, rtol=0)
    one = pixels(double, prompts, image=source, strength=0.5)
    torch.testing.assert_close(one[:1], both[:1], atol=1e-7, rtol=0)
    many = pixels(double, image=source, strength=0.5, num_images_per_prompt=2)
    torch.testing.assert_close(many[:1], both[:1], atol=1e-7, rtol=0)


def test_without_a_prompt_the_text_is_empty(pipeline, source):
    without = pipeline(image=source, seed=3, output_type="pt").images
    assert torch.equal(without, pixels(pipeline, "", image=source))


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((256, 128), {}, (256, 128)),
        ((300, 200), {}, (128, 128)),
        ((500, 150), {}, (256, 128)),
        ((300, 200), {"width": 256, "height": 128}, (256, 128)),
    ],
)
def test_the_size_is_the_images_own_or_the_nearest_or_as_requested(pipeline, size, asked, expected):
    (made,) = pipeline(image=Image.new("RGB", size, "red"), decoder_strength=0, **asked).images
    assert made.size == expected


def test_transparency_shows_white_and_orientation_is_applied(pipeline):
    clear = Image.new("RGBA", (128, 128), (255, 0, 0, 0))
    white = Image.new("RGB", (128, 128), "white")
    assert torch.equal(
        pixels(pipeline, image=clear, decoder_strength=0),
        pixels(pipeline, image=white, decoder_strength=0),
    )
    wide = Image.new("RGB", (256, 128))
    wide.getexif()[0x0112] = 6  # stored lying
    (made,) = pipeline(image=wide, decoder_strength=0).images
    assert made.size == (128, 256)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"strength": 1.2}, ConfigError, r"strength must be between 0 .* found 1.2"),
        ({"decoder_strength": -0.1}, ConfigError, r"decoder_strength must be .* found -0.1"),
        ({"strength": float("nan")}, ConfigError, "strength must be between"),
        ({"strength": 0.5, "decoder_strength": 0}, ConfigError, "strength 0.5 changes nothing"),
        ({"image": None, "strength": 0.5}, ConfigError, "strength is about an image"),
        ({"image": "photo.png"}, ConfigError, "open a file with PIL.Image.open"),
        ({"image": []}, ConfigError, "found an empty list"),
        ({"image": torch.zeros(3, 128)}, ConfigError, r"must be \(3, H, W\).*found \(3, 128\)"),
        ({"image": np.zeros((128, 128, 4))}, ConfigError, r"must be \(H, W, 3\)"),
        ({"image": torch.zeros(3, 128, 128) - 1}, ConfigError, r"in \[0, 1\], found -1 to -1"),
        ({"height": 100}, SizeError, "height must be"),
        ({"prompt": ["a", "b", "c"], "image": TWO}, ConfigError, "a row for each of the 3"),
        ({"image_embeddings": torch.zeros(1, 6, 3, 3)}, ConfigError, "pass one of them"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_sentence(pipeline, source, changes, error, words):
    with pytest.raises(error, match=words):
        pipeline(**{"prompt": PROMPT, "image": source, **changes})


def test_a_model_without_compressor_says_where_to_find_one(folder, pipeline, source):
    without = Pipeline.from_pretrained(folder)
    with pytest.raises(ConfigError, match=r"small has no compressor.*warp-ai/EfficientNetEncoder"):
        without(PROMPT, image=source)
    kept = pixels(without, image=source, decoder_strength=0)  # Stage A alone
    assert torch.equal(kept, pixels(pipeline, image=source, decoder_strength=0))


def test_the_compressor_stays_precise_in_half_precision(source):
    half = small_pipeline().to(dtype=torch.bfloat16).cascade
    assert half.compressor.mapper[0].weight.dtype == torch.float32
    found = scale_semantics(half.semantics_from_image(tensor_of(source)))
    exact = scale_semantics(small_pipeline().cascade.semantics_from_image(tensor_of(source)))
    assert torch.equal(found, exact)


@pytest.mark.parametrize("low_memory", [False, True])
def test_the_bundled_model_reconstructs_an_image(low_memory):
    pipeline = Pipeline.from_pretrained(low_memory=low_memory)
    original = pipeline("a 3D red heart on a white background", seed=1).images[0]
    by_a = pipeline.reconstruct(original, stage="a", output_type="pt")
    by_b = pipeline.reconstruct(original, stage="b", output_type="pt")
    assert by_a.psnr[0] > 35 and by_b.psnr[0] > 25
    for found in (by_a, by_b):
        error = (found.images - tensor_of(original)).square().mean()
        assert found.psnr[0] == pytest.approx(-10 * float(error.log10()), abs=0.01)
    with pytest.raises(ConfigError, match="stage must be a or b, found 'c'"):
        pipeline.reconstruct(original, stage="c")
