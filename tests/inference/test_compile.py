"""Compiled steps: the same images, compiled once for each size and batch size.

Compiling takes long on a CPU, so all tests share one compiled model.
"""

from collections.abc import Iterator

import pytest
import torch
from generated import PROMPT, difference, pixels
from models_small import small_pipeline
from small_lora import write_lora

from wuerstchen.errors import WuerstchenError
from wuerstchen.inference import sampling
from wuerstchen.inference.pipeline import Pipeline

pytestmark = [
    pytest.mark.slow,
    # The compiler's own, about what it could do with other settings.
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SETTINGS = {
    "prior_num_inference_steps": 4,
    "num_inference_steps": 2,
    "prior_guidance_scale": 3.0,
    "prior_guidance_interval": (0.4, 1.0),  # with both rows, and with one
}


@pytest.fixture(scope="module")
def compiled() -> Iterator[Pipeline]:
    """Both shapes of Stage C and the one of Stage B are compiled; nothing is from here on."""
    torch._dynamo.reset()
    pipeline = small_pipeline()
    assert pipeline.compile() is pipeline
    pixels(pipeline, **SETTINGS)
    yield pipeline
    torch._dynamo.reset()


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_compiled_images_are_the_same_and_no_setting_compiles_again(compiled):
    plain, before = small_pipeline(), graphs()
    assert before >= 3, "Stage C with both rows and with one, and Stage B"
    with torch.compiler.set_stance("fail_on_recompile"):
        for changes in (
            {},
            {"seed": 11},
            {"prompt": "a green hat"},
            {"negative_prompt": "two birds"},
            {"prior_guidance_scale": 5.0, "prior_guidance_rescale": 0.5},
            {"prior_num_inference_steps": 5, "num_inference_steps": 3},
            {"prior_sampler": "dpm++2m", "prior_spacing": "log_snr"},
            {"prior_guidance_interval": (0.2, 0.9)},
        ):
            given = {**SETTINGS, **changes}
            found, expected = pixels(compiled, **given), pixels(plain, **given)
            # Rounding: no pixel of a file changes by more than one, most of them not at all.
            assert difference(found, expected) < 1e-4, changes
            assert float((found - expected).abs().max()) < 1 / 255, changes
    assert graphs() == before


def test_a_compiled_network_names_the_layer_of_a_damaged_weight_too(compiled):
    weight = compiled.cascade.stage_b.up_blocks[1][0].channelwise[0].weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] = float("nan")
        words = r"first in layer up_blocks\.1\.0\.channelwise\.0 of Stage B"
        with pytest.raises(WuerstchenError, match=words):
            compiled(PROMPT, seed=3, **SETTINGS)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert pixels(compiled, **SETTINGS).isfinite().all()


def test_an_overflow_in_a_compiled_network_names_the_layer_too(compiled):
    bias = compiled.cascade.stage_c.blocks[3].depthwise.bias
    weight = compiled.cascade.stage_c.blocks[3].depthwise.weight
    kept = bias.detach().clone(), weight.detach().clone()
    try:
        with torch.no_grad():
            bias.fill_(3e38)
            weight.fill_(1e30)
        with pytest.raises(WuerstchenError, match=r"first in layer blocks\.3\S* of Stage C"):
            compiled(PROMPT, seed=3, **SETTINGS)
    finally:
        with torch.no_grad():
            bias.copy_(kept[0])
            weight.copy_(kept[1])


def test_an_unguided_time_costs_half_in_a_compiled_network_too(compiled):
    """The network itself is compiled, so one row is one row."""
    seen: list[int] = []
    forward = compiled.cascade._forward_c

    def count(x, t, condition):  # type: ignore[no-untyped-def]
        seen.append(len(x))
        return forward(x, t, condition)

    compiled.cascade._forward_c = count
    try:
        pixels(compiled, **SETTINGS)
    finally:
        compiled.cascade._forward_c = forward
    assert seen == [2, 2, 2, 1]


def test_any_number_of_shapes_runs_and_up_to_a_limit_they_are_compiled():
    network = torch.nn.Linear(4, 3)
    torch._dynamo.reset()
    step, before = sampling.compiled(network, lambda: True), graphs()
    with torch.inference_mode():
        for rows in range(1, sampling.PROGRAMS + 4):
            x = torch.randn(rows, 4)
            assert difference(step(x), network(x)) < 1e-6
    assert graphs() - before == sampling.PROGRAMS
    torch._dynamo.reset()


def test_offloaded_weights_are_compiled_once(tmp_path):
    small_pipeline().save_pretrained(tmp_path)
    low = Pipeline.from_pretrained(tmp_path, low_memory=True).compile()
    found, before = pixels(low, **SETTINGS), graphs()
    assert before > 0
    for _ in range(2):
        assert torch.equal(pixels(low, **SETTINGS), found)
    assert graphs() == before
    assert difference(found, pixels(small_pipeline(), **SETTINGS)) < 1e-4
    torch._dynamo.reset()


def test_a_lora_loaded_after_compiling_works_live_and_fused(tmp_path):
    write_lora(tmp_path / "style.safetensors", small_pipeline())
    with_it, plain = small_pipeline().compile(), small_pipeline()
    without = pixels(with_it, **SETTINGS)
    for pipeline in (with_it, plain):
        pipeline.load_lora_weights(tmp_path / "style.safetensors")
    expected = pixels(plain, **SETTINGS)
    assert difference(without, expected) > 1e-2, "a LoRA that changes nothing proves nothing"
    assert difference(pixels(with_it, **SETTINGS), expected) < 1e-4
    with_it.fuse_lora()
    assert difference(pixels(with_it, **SETTINGS), expected) < 1e-4
    with_it.unload_lora_weights()
    assert difference(pixels(with_it, **SETTINGS), without) < 1e-4
    torch._dynamo.reset()
