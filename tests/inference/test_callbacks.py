"""Callers who watch, change or stop a generation."""

from collections.abc import Mapping

import pytest
import torch
from generated import PROMPT, STEPS_B, STEPS_C, difference, pixels
from torch import Tensor

from wuerstchen.errors import ConfigError
from wuerstchen.inference.pipeline import Pipeline


def test_callbacks_see_every_step_of_their_stage_with_its_time(pipeline):
    prior, decoder = [], []
    with_callbacks = pixels(
        pipeline,
        prior_callback_on_step_end=lambda pipe, step, t, tensors: prior.append((step, t)),
        callback_on_step_end=lambda pipe, step, t, tensors: decoder.append((step, t)),
    )
    assert [step for step, _ in prior] == list(range(STEPS_C))
    assert [t for _, t in prior] == pytest.approx([1 - k / STEPS_C for k in range(STEPS_C)])
    assert [t for _, t in decoder] == pytest.approx([1 - k / STEPS_B for k in range(STEPS_B)])
    assert torch.equal(with_callbacks, pixels(pipeline))


def test_a_callback_may_replace_the_latents(pipeline):
    def end_in_zeros(
        pipe: Pipeline, step: int, t: float, tensors: dict[str, Tensor]
    ) -> Mapping[str, Tensor]:
        return {"latents": torch.zeros_like(tensors["latents"])} if step == STEPS_B - 1 else tensors

    images = pixels(pipeline, callback_on_step_end=end_in_zeros)
    with torch.inference_mode():
        assert torch.equal(images, pipeline.cascade.stage_a.decode(torch.zeros(1, 4, 32, 32)))


def test_latents_replaced_midway_are_what_the_next_step_starts_from(pipeline):
    seen = []

    def keep(pipe: Pipeline, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"].clone())
        return {"latents": seen[0]} if step == 1 else {}

    changed = pixels(pipeline, prior_callback_on_step_end=keep)
    assert difference(changed, pixels(pipeline)) > 1e-3


def test_a_callback_may_replace_the_text_and_the_semantics(pipeline):
    other = pipeline.cascade.encode(pipeline.cascade.text_c, ["a green hat", ""])
    images = pixels(
        pipeline,
        prior_callback_on_step_end=lambda pipe, step, t, tensors: {
            "text_encoder_hidden_states": other
        },
    )
    assert difference(images, pixels(pipeline)) > 1e-4
    images = pixels(
        pipeline,
        callback_on_step_end=lambda pipe, step, t, tensors: {
            "image_embeddings": torch.zeros_like(tensors["image_embeddings"])
        },
        callback_on_step_end_tensor_inputs=["image_embeddings"],
    )
    assert difference(images, pixels(pipeline)) > 1e-4


def test_a_callback_cannot_request_an_unknown_tensor(pipeline):
    with pytest.raises(ConfigError, match=r"latents, text_encoder_hidden_states.*found 'effnet'"):
        pipeline(
            PROMPT,
            callback_on_step_end=lambda *_: {},
            callback_on_step_end_tensor_inputs=["effnet"],
        )


def test_the_tensors_of_a_callback_are_checked_before_any_work(pipeline):
    done = []
    for stage, word in (("prior_", "image_embeddings"), ("", "effnet")):
        arguments = {
            f"{stage}callback_on_step_end": lambda *_: {},
            f"{stage}callback_on_step_end_tensor_inputs": [word],
        }
        with pytest.raises(ConfigError, match=f"can be given latents.*found '{word}'"):
            pipeline(PROMPT, on_step=lambda *step: done.append(step), **arguments)
    assert done == []


def test_a_callback_may_request_every_tensor_that_conditions_its_stage(pipeline):
    text = ["latents", "text_encoder_hidden_states", "negative_prompt_embeds"]
    pixels(
        pipeline,
        prior_guidance_scale=2.0,
        decoder_guidance_scale=2.0,
        prior_callback_on_step_end=lambda *_: {},
        prior_callback_on_step_end_tensor_inputs=text,
        callback_on_step_end=lambda *_: {},
        callback_on_step_end_tensor_inputs=[*text, "image_embeddings"],
    )


def test_an_error_in_a_callback_stops_the_generation(pipeline):
    class Cancelled(Exception):
        pass

    def cancel(stage: str, done: int, total: int) -> None:
        if stage == "Stage B":
            raise Cancelled

    with pytest.raises(Cancelled):
        pixels(pipeline, on_step=cancel)
