"""Settings of a generation, each of which reaches the networks."""

import copy

import pytest
import torch
from generated import PROMPT, STEPS_C, difference, pixels

from wuerstchen.errors import ConfigError
from wuerstchen.inference.model_info import Defaults, ModelInfo
from wuerstchen.inference.pipeline import Pipeline


def test_text_negative_text_guidance_and_steps_change_the_image(pipeline):
    plain = pixels(pipeline)
    for other in (
        pixels(pipeline, "a green hat"),
        pixels(pipeline, negative_prompt="two birds"),
        pixels(pipeline, prior_guidance_scale=1.0),
        pixels(pipeline, decoder_guidance_scale=3.0),
        pixels(pipeline, prior_num_inference_steps=5),
        pixels(pipeline, num_inference_steps=5),
    ):
        assert difference(plain, other) > 1e-3


def test_an_unused_negative_prompt_changes_nothing(pipeline):
    one = pixels(pipeline, prior_guidance_scale=1.0)
    assert torch.equal(one, pixels(pipeline, prior_guidance_scale=1.0, negative_prompt="two birds"))


def test_an_empty_prompt_is_allowed_and_guidance_to_it_has_no_direction(double):
    torch.testing.assert_close(
        pixels(double, "", prior_guidance_scale=5.0),
        pixels(double, "", prior_guidance_scale=1.0),
        atol=1e-7,
        rtol=0,
    )


def test_embeddings_replace_the_text_of_stage_c(pipeline):
    embeds = pipeline.cascade.encode(pipeline.cascade.text_c, [PROMPT])
    empty = pipeline.cascade.encode(pipeline.cascade.text_c, ["two birds"])
    assert torch.equal(
        pixels(pipeline, prompt_embeds=embeds, negative_prompt_embeds=empty),
        pixels(pipeline, negative_prompt="two birds"),
    )
    images = pipeline(prompt_embeds=embeds, num_images_per_prompt=2, output_type="pt").images
    assert images.shape == (2, 3, 128, 128)


def test_explicit_times_are_used_as_given(pipeline):
    even = [1 - k / STEPS_C for k in range(STEPS_C + 1)]
    assert difference(pixels(pipeline, prior_timesteps=even), pixels(pipeline)) < 1e-3
    assert difference(pixels(pipeline, prior_timesteps=[1.0, 0.9, 0.0]), pixels(pipeline)) > 1e-2


def test_without_settings_of_the_model_there_are_12_steps_of_stage_c_and_6_of_stage_b(pipeline):
    silent = copy.copy(pipeline)
    silent.info = ModelInfo(size=128)
    steps = []
    pixels(silent, on_step=lambda stage, done, total: steps.append((stage, done, total)))
    assert steps[11] == ("Stage C", 12, 12)
    assert steps[-2:] == [("Stage B", 6, 6), ("Stage A", 1, 1)]


def test_the_published_list_has_29_steps(pipeline):
    steps = []
    pixels(
        pipeline,
        prior_spacing="published",
        on_step=lambda stage, done, total: steps.append((stage, done, total)),
    )
    assert steps[28] == ("Stage C", 29, 29)


def rows(pipeline: Pipeline, **settings: object) -> list[tuple[int, float]]:
    """Rows and time of each call of Stage C."""
    seen: list[tuple[int, float]] = []
    handle = pipeline.cascade.stage_c.register_forward_pre_hook(
        lambda module, inputs: seen.append((len(inputs[0]), round(float(inputs[1][0]), 3)))
    )
    try:
        pixels(pipeline, **settings)
    finally:
        handle.remove()
    return seen


def test_times_outside_the_interval_of_guidance_cost_half(pipeline):
    steps = {"prior_num_inference_steps": 4, "prior_guidance_scale": 4.0}
    assert rows(pipeline, **steps) == [(2, 1.0), (2, 0.75), (2, 0.5), (2, 0.25)]
    inside = rows(pipeline, **steps, prior_guidance_interval=(0.4, 0.8))
    assert inside == [(1, 1.0), (2, 0.75), (2, 0.5), (1, 0.25)]
    falling = rows(pipeline, **steps, prior_guidance_end=0.0)  # the scale is 1 at time 0.25
    assert falling == [(2, 1.0), (2, 0.75), (2, 0.5), (1, 0.25)]


def test_a_sampler_that_evaluates_the_end_of_a_step_may_find_it_outside_the_interval(pipeline):
    seen = rows(
        pipeline,
        prior_sampler="heun",
        prior_timesteps=[1.0, 0.6, 0.2, 0.0],
        prior_guidance_scale=4.0,
        prior_guidance_interval=(0.3, 1.0),
    )
    assert seen == [(2, 1.0), (2, 0.6), (2, 0.6), (1, 0.2), (1, 0.2)]


def test_each_setting_of_sampling_and_guidance_changes_the_image(pipeline):
    plain = pixels(pipeline, prior_guidance_scale=4.0)
    for other in (
        {"prior_sampler": "dpm++2m"},
        {"prior_spacing": "log_snr"},
        {"prior_guidance_interval": (0.3, 0.7)},
        {"prior_guidance_rescale": 0.9},
        {"prior_guidance_end": 1.0},
        {"decoder_sampler": "ddim"},
        {"decoder_spacing": "log_snr"},
    ):
        assert difference(plain, pixels(pipeline, prior_guidance_scale=4.0, **other)) > 1e-4, other


def test_settings_that_a_call_leaves_open_are_the_models_own(pipeline):
    other = copy.copy(pipeline)
    settings = {
        "prior_num_inference_steps": 5,
        "prior_sampler": "dpm++2m",
        "prior_spacing": "log_snr",
        "prior_guidance_scale": 3.0,
        "prior_guidance_interval": (0.3, 0.9),
        "prior_guidance_rescale": 0.5,
        "num_inference_steps": 3,
        "decoder_sampler": "heun",
        "decoder_spacing": "tuned",
        "decoder_guidance_scale": 2.0,
    }
    other.info = ModelInfo(size=128, defaults=Defaults.model_validate(settings))
    assert torch.equal(pixels(other), pixels(pipeline, **settings))


@pytest.mark.parametrize("steps", [2, 5])
def test_text_is_mapped_to_keys_and_values_once_however_many_steps_follow(pipeline, steps):
    counts: dict[str, int] = {}

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    mapping = [
        (f"{stage} {name}", module)
        for stage in ("stage_b", "stage_c")
        for name, module in getattr(pipeline.cascade, stage).named_modules()
        if name.endswith(("kv_mapper", "text_mapper"))
    ]
    handles = [
        module.register_forward_hook(lambda *_, name=name: count(name)) for name, module in mapping
    ]
    try:
        pixels(
            pipeline,
            prior_num_inference_steps=steps,
            num_inference_steps=steps,
            prior_guidance_scale=4.0,
            decoder_guidance_scale=2.0,
        )
    finally:
        for handle in handles:
            handle.remove()
    assert len(mapping) >= 5
    assert counts == dict.fromkeys((name for name, _ in mapping), 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prior_sampler": "euler"}, "sampler of Stage C must be one of ddpm, .*found 'euler'"),
        ({"decoder_sampler": "DDPM"}, "sampler of Stage B must be one of ddpm, .*found 'DDPM'"),
        ({"prior_spacing": "karras"}, "must be one of time, .*, published, found 'karras'"),
        ({"prior_num_inference_steps": 5, "prior_timesteps": [1.0, 0.0]}, "name every step;"),
        ({"prior_spacing": "time", "prior_timesteps": [1.0, 0.0]}, "name every step;"),
        ({"num_inference_steps": -1}, "steps of Stage B must be at least 1, found -1"),
        ({"num_inference_steps": 10**9}, "must be at most 10000, found 1000000000"),
        ({"prior_spacing": "published", "prior_num_inference_steps": 7}, "29 steps, found 7"),
        ({"prior_guidance_interval": (0.8, 0.2)}, "smaller one first, found 0.8 and 0.2"),
        (
            {"prior_guidance_interval": (0.8, 0.9), "prior_num_inference_steps": 2},
            "must contain at least one of its step times, 1, 0.5, found 0.8 to 0.9; widen it",
        ),
        ({"prior_guidance_interval": (-1.0, 2.0)}, "between 0 .* and 1 .*found -1.0 and 2.0"),
        ({"prior_guidance_interval": (float("nan"), 1.0)}, "two times between 0 .*found nan"),
        ({"prior_guidance_rescale": 1.5}, "rescale of guidance must be between 0 and 1, found 1.5"),
        ({"prior_guidance_end": float("inf")}, "must be a finite number, found inf"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(pipeline, arguments, words):
    with pytest.raises(ConfigError, match=words) as caught:
        pipeline(PROMPT, **arguments)
    assert "\n" not in str(caught.value)
