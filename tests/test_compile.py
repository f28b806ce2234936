"""Steps that torch compiled: the same pictures, and compiled once for a size and a batch.

A small Stage C and B compile in a while on a CPU, so one compiled model serves all tests here.
"""

from collections.abc import Iterator

import pytest
import torch
from drawn import PROMPT, difference, pixels
from models_small import small_pipeline

from wuerstchen.errors import WuerstchenError
from wuerstchen.pipeline import Pipeline

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
    """Both shapes of Stage C and the one of Stage B were seen; from here nothing is compiled."""
    torch._dynamo.reset()
    pipeline = small_pipeline()
    assert pipeline.compile() is pipeline
    pixels(pipeline, **SETTINGS)
    yield pipeline
    torch._dynamo.reset()


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_compiled_pictures_are_the_same_and_nothing_that_changes_compiles_anew(compiled):
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


def test_a_network_that_compiled_names_the_layer_of_a_damaged_weight_too(compiled):
    weight = compiled.stage_b.up_blocks[1][0].channelwise[0].weight
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


def test_numbers_that_grow_too_large_in_a_compiled_network_name_the_layer_too(compiled):
    bias = compiled.stage_c.blocks[3].depthwise.bias
    weight = compiled.stage_c.blocks[3].depthwise.weight
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
    """What is compiled is the network itself: with one row it is called with one row."""
    seen: list[int] = []
    forward = compiled._forward_c

    def count(x, t, condition):  # type: ignore[no-untyped-def]
        seen.append(len(x))
        return forward(x, t, condition)

    compiled._forward_c = count
    try:
        pixels(compiled, **SETTINGS)
    finally:
        compiled._forward_c = forward
    assert seen == [2, 2, 2, 1]
