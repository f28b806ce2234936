"""Images changed where a mask is white, and on larger canvases."""

import numpy as np
import pytest
import torch
from generated import PROMPT, pixels
from PIL import Image, ImageDraw
from torch import Tensor

from wuerstchen.errors import ConfigError
from wuerstchen.inference.canvas import larger_canvas
from wuerstchen.inference.edit import Edit
from wuerstchen.inference.images import pixels_of
from wuerstchen.inference.source_data import SourceData


def noise_image(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def box_mask(
    size: tuple[int, int], box: tuple[int, int, int, int], level: int = 255
) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=level)
    return mask


def tensor_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        ((128, 128), {}),
        ((256, 128), {"strength": 0.6}),
        ((201, 155), {}),  # no size of the stages
        ((201, 155), {"padding_mask_crop": 7}),
        ((640, 500), {"padding_mask_crop": 0, "decoder_strength": 0.5}),
        ((201, 155), {"width": 256, "height": 128}),
    ],
)
def test_pixels_outside_the_mask_are_those_of_the_image_bit_for_bit(pipeline, size, arguments):
    image, box = noise_image(*size), (40, 30, 90, 100)
    made = pipeline(PROMPT, image=image, mask_image=box_mask(size, box), seed=3, **arguments)
    assert made.images[0].size == size
    changed = (np.asarray(made.images[0]) != np.asarray(image)).any(axis=2)
    inside = changed[30:100, 40:90]
    assert changed.sum() == inside.sum() and inside.mean() > 0.9


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++2m"])
def test_a_white_mask_at_full_strength_is_text_to_image(pipeline, sampler):
    settings = {"prior_sampler": sampler, "decoder_sampler": sampler, "guidance_scale": 2.0}
    white = Image.new("L", (128, 128), 255)
    made = pixels(pipeline, image=noise_image(128, 128), mask_image=white, **settings)
    assert torch.equal(made, pixels(pipeline, **settings))


def test_a_uniform_grey_mask_is_a_fraction_of_both_strengths(pipeline):
    """Bit for bit where that fraction is one of the times, with a sampler without memory."""
    settings = {
        "image": noise_image(128, 128),
        "prior_sampler": "ddim",
        "decoder_sampler": "ddim",
        "prior_timesteps": [1.0, 0.75, 0.5, 0.25, 0.0],
        "decoder_timesteps": [1.0, 0.5, 0.0],
    }
    grey = torch.full((1, 1, 128, 128), 0.5)
    half = pixels(pipeline, strength=0.5, decoder_strength=0.5, **settings)
    assert torch.equal(pixels(pipeline, mask_image=grey, **settings), half)


def test_kept_semantics_are_conservative_and_kept_latents_exact(pipeline):
    """One white pixel frees the whole cell that it lies in, at either stage, and no other."""
    image, seen = noise_image(128, 128), {}
    mask = box_mask((128, 128), (50, 43, 51, 44))  # semantics cell (1, 1), latent cell (10, 12)
    pixels(
        pipeline,
        image=image,
        mask_image=mask,
        prior_callback_on_step_end=lambda _, step, t, x: seen.update(c=x["latents"].clone()),
        callback_on_step_end=lambda _, step, t, x: seen.update(b=x["latents"].clone()),
    )
    cascade = pipeline.cascade
    source = {
        "c": (cascade.semantics_from_image(tensor_of(image)) + 1) / 42,
        "b": cascade.latents_from_image(tensor_of(image)),
    }
    for stage, cell in (("c", [1, 1]), ("b", [10, 12])):
        changed = (seen[stage] != source[stage]).any(dim=1)[0]
        assert changed.nonzero().tolist() == [cell], stage


def test_a_cell_takes_part_in_the_steps_from_its_own_time_down():
    data, noise, x = torch.randn(3, 1, 1, 1, 3, dtype=torch.float64)
    mask = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    source = SourceData(data=data, strength=0.8, mask=mask)
    for t, s, free in ((0.8, 0.4, [False, False, True]), (0.4, 0.0, [False, True, True])):
        state = x.clone()
        source.restore(state, noise, t, s)
        assert (state == x).flatten().tolist() == free
        if s == 0:
            assert state[..., 0] == data[..., 0]


def test_the_crop_surrounds_the_mask_with_its_margin_and_has_the_working_aspect():
    image, mask = noise_image(640, 500), box_mask((640, 500), (600, 100, 640, 120))
    edit = Edit.requested(128, image, mask_image=mask, padding_mask_crop=10)
    box, size = edit.box, edit.size
    assert box is not None and box.left <= 590 and box.right == 640
    assert box.top <= 90 and box.bottom >= 130
    assert box.shape.width / box.shape.height == pytest.approx(size.width / size.height, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_image": Image.new("L", (128, 128))}, "black everywhere.*invert"),
        ({"mask_image": Image.new("L", (256, 128), 255)}, "128 x 128 pixels, found 256 x 128"),
        ({"mask_image": [Image.new("L", (128, 128), 255)] * 2}, "one for each of 1 .*found 2"),
        ({"mask_image": torch.full((128, 128), 2.0)}, r"mask_image must have numbers in \[0, 1\]"),
        ({"mask_image": None, "padding_mask_crop": 3}, "pass mask_image too"),
        ({"padding_mask_crop": -1}, "at least 0 pixels, found -1"),
        ({"image": [Image.new("RGB", (128, 128)), Image.new("RGB", (64, 64))]}, "have one size"),
    ],
)
def test_masks_that_cannot_work_are_one_sentence(pipeline, changes, words):
    given = {"image": noise_image(128, 128), "mask_image": Image.new("L", (128, 128), 255)}
    with pytest.raises(ConfigError, match=words):
        pipeline(PROMPT, **{**given, **changes})


def test_a_mask_of_the_same_shape_may_have_another_size(pipeline):
    image, box = noise_image(128, 128), (40, 20, 80, 60)
    small = box_mask((64, 64), tuple(side // 2 for side in box))
    exact = pixels(pipeline, image=image, mask_image=box_mask((128, 128), box))
    assert torch.equal(pixels(pipeline, image=image, mask_image=small), exact)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_parts_of_a_mask_are_black(mode):
    mask = Image.new(mode, (3, 1), "white")
    mask.putalpha(Image.frombytes("L", (3, 1), bytes([0, 51, 255])))
    (found,) = pixels_of(mask, "mask_image", channels=1)
    assert found.flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_a_larger_canvas_keeps_the_image_bit_for_bit(pipeline):
    image = noise_image(128, 128)
    canvas, mask = larger_canvas(image, left=30, bottom=128)
    assert canvas.size == mask.size == (158, 256)
    assert np.asarray(mask).sum() == 255 * (158 * 256 - 128 * 128)
    made = pipeline(PROMPT, image=canvas, mask_image=mask, seed=3).images[0]
    assert made.size == (158, 256)
    assert made.crop((30, 0, 158, 128)).tobytes() == image.tobytes()
    for sides, words in (({}, "at least one"), ({"top": -1}, "top must be at least 0")):
        with pytest.raises(ConfigError, match=words):
            larger_canvas(image, **sides)
