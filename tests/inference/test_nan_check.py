"""Numbers that are not finite are traced to the stage and the layer that produced them."""

import re

import pytest
import torch
from generated import PROMPT, pixels
from models_small import small_pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wuerstchen.errors import WuerstchenError
from wuerstchen.inference.nan_check import first_bad_layer
from wuerstchen.inference.pipeline import Pipeline

NAN = float("nan")

PLACES = [
    ("stage_c", "text_mapper.0", "Stage C"),
    ("stage_c", "blocks.3.channelwise.4", "Stage C"),
    ("stage_c", "blocks.4.mapper", "Stage C"),
    ("stage_c", "blocks.5.attention.to_k", "Stage C"),
    ("stage_b", "semantics_mappers.1", "Stage B"),
    ("stage_b", "down_blocks.1.1.channelwise.0", "Stage B"),
    ("stage_b", "up_blocks.1.0.depthwise", "Stage B"),
    ("stage_a", "up_blocks.2.channelwise.0", "Stage A"),
    ("text_c", "model.encoder.layers.0.mlp.fc1", "the text encoder of Stage C"),
    ("text_b", "model.encoder.layers.0.mlp.fc1", "the text encoder of Stage B"),
]


def layer(pipeline: Pipeline, part: str, name: str) -> tuple[str, nn.Module]:
    """Its full name and itself; some versions of transformers nest the encoder differently."""
    ((found, module),) = (
        (found, module)
        for found, module in pipeline.cascade.networks[part].named_modules()  # type: ignore[index]
        if found == name or (part.startswith("text") and found.endswith(name.split("model.")[1]))
    )
    return found, module


@pytest.mark.parametrize(("part", "name", "stage"), PLACES)
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_one_damaged_weight_names_its_stage_and_its_layer(part, name, stage, value):
    broken = small_pipeline()
    name, module = layer(broken, part, name)
    assert isinstance(module.weight, Tensor)
    with torch.no_grad():
        module.weight.flatten()[0] = value
    with pytest.raises(WuerstchenError) as caught:
        broken(PROMPT, seed=3)
    sentence = str(caught.value)
    assert sentence.startswith(f"Expected finite numbers from {stage}, found NaN or infinity")
    assert f"first in layer {name} of {stage};" in sentence
    assert "float32" in sentence and "\n" not in sentence


def test_an_overflow_of_sound_weights_names_the_layer_where_it_starts():
    broken = small_pipeline()
    with torch.no_grad():  # finite, and too much for fp32 once they are multiplied
        broken.cascade.stage_c.blocks[3].depthwise.weight.fill_(1e30)
        broken.cascade.stage_c.blocks[3].depthwise.bias.fill_(3e38)
    with pytest.raises(WuerstchenError, match=r"first in layer blocks\.3\S* of Stage C"):
        broken(PROMPT, seed=3)


def test_with_sound_weights_the_first_layer_in_the_order_of_the_work_is_named():
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x))
            return out

    network = Late()
    assert first_bad_layer(network, lambda: network(torch.ones(1, 2))) == ""
    assert first_bad_layer(network, lambda: network(torch.full((1, 2), NAN))) == "first"
    assert not network.first._forward_hooks, "no hook is left on the network"


def test_mapped_weights_are_released_after_a_failure(tmp_path):
    small_pipeline().save_pretrained(tmp_path / "model")
    (path,) = (tmp_path / "model" / "decoder").glob("*.safetensors")
    state = load_file(path)
    state["embedding.1.weight"].fill_(NAN)
    save_file(state, path, {"format": "pt"})
    low = Pipeline.from_pretrained(tmp_path / "model", low_memory=True)
    with pytest.raises(WuerstchenError, match=re.escape("layer embedding.1 of Stage B")):
        low(PROMPT)
    assert all(p.is_meta for net in low.cascade.networks.values() for p in net.parameters())


def test_a_callback_that_returns_nan_is_an_error():
    pipeline = small_pipeline()
    with pytest.raises(WuerstchenError, match="finite numbers from Stage C"):
        pixels(
            pipeline,
            prior_callback_on_step_end=lambda pipe, step, t, tensors: {
                "latents": torch.full_like(tensors["latents"], NAN)
            },
        )
