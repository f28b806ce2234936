"""The dtype of each component, and how far images may differ."""

import pytest
import torch
from generated import difference, pixels
from models_small import small_pipeline
from torch import Tensor

from wuerstchen.diffusion import SAMPLERS
from wuerstchen.errors import ConfigError
from wuerstchen.inference.dtypes import component_dtypes
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.weights.layout import REQUIRED

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return pixels(small_pipeline())


def dtypes(pipeline: Pipeline) -> dict[str, torch.dtype]:
    return {part: next(net.parameters()).dtype for part, net in pipeline.cascade.networks.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(BF16, 0.1), (FP16, 0.01)])
@pytest.mark.parametrize("low_memory", [False, True])
def test_half_precision_makes_finite_images_close_to_those_of_fp32(
    folder, exact, dtype, tolerance, low_memory
):
    half = pixels(Pipeline.from_pretrained(folder, torch_dtype=dtype, low_memory=low_memory))
    assert half.isfinite().all() and half.std() > 0.1
    assert 0 < difference(half, exact) < tolerance
    other_seed = pixels(small_pipeline(), seed=8)
    assert difference(other_seed, exact) > tolerance, "the tolerance would pass another image"


def test_fp16_keeps_in_fp32_what_overflows_in_it(folder):
    expected = {**dict.fromkeys(REQUIRED, FP16), "stage_c": FP32}
    assert dtypes(Pipeline.from_pretrained(folder, torch_dtype=FP16)) == expected
    assert dtypes(small_pipeline().to(dtype=FP16)) == expected
    assert dtypes(small_pipeline().to(dtype=BF16)) == dict.fromkeys(REQUIRED, BF16)


def test_each_component_may_have_its_own_dtype_and_the_others_have_fp32(folder, exact):
    requested = {"stage_b": BF16, "text_c": BF16, "stage_c": FP16}
    pipeline = Pipeline.from_pretrained(folder, torch_dtype=requested)
    assert dtypes(pipeline) == {**dict.fromkeys(REQUIRED, FP32), **requested}
    assert difference(pixels(pipeline), exact) < 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_states_of_every_sampler_stay_in_fp32(sampler):
    half = small_pipeline().to(dtype=dict.fromkeys(REQUIRED, BF16))
    seen: list[tuple[torch.dtype, ...]] = []

    def record(pipe: Pipeline, step: int, t: float, tensors: dict[str, Tensor]) -> None:
        seen.append((tensors["latents"].dtype, tensors["text_encoder_hidden_states"].dtype))

    names = ["latents", "text_encoder_hidden_states"]
    pixels(
        half,
        prior_num_inference_steps=2,
        num_inference_steps=2,
        prior_sampler=sampler,
        decoder_sampler=sampler,
        prior_callback_on_step_end=record,
        callback_on_step_end=record,
        prior_callback_on_step_end_tensor_inputs=names,
        callback_on_step_end_tensor_inputs=names,
    )
    assert seen == [(FP32, BF16)] * 4


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ({"stage_d": BF16}, "some of stage_a, .*, text_c, found 'stage_d'"),
        (torch.int8, "must be one of torch.float32, .*found torch.int8 for stage_a"),
        ({"stage_b": "bf16"}, "found bf16 for stage_b"),
    ],
)
def test_unknown_components_and_dtypes_are_one_sentence(requested, words):
    with pytest.raises(ConfigError, match=words) as caught:
        component_dtypes(requested)
    assert "\n" not in str(caught.value)


def test_fp64_images_are_those_of_fp32_to_rounding(exact):
    assert difference(pixels(small_pipeline().to(dtype=torch.float64)), exact) < 1e-4
