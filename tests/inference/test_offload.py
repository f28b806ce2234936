"""Weights that are loaded only while their stage computes: same images, nothing left over."""

import shutil

import pytest
import torch
from generated import PROMPT, difference, pixels
from small_lora import write_lora
from torch import nn

from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.inference.pipeline import Pipeline


@pytest.fixture(scope="module")
def normal(folder) -> Pipeline:
    return Pipeline.from_pretrained(folder)


@pytest.fixture
def low(folder) -> Pipeline:
    return Pipeline.from_pretrained(folder, low_memory=True)


def places(network: nn.Module) -> set[str]:
    """Devices of the weights."""
    return {tensor.device.type for tensor in network.state_dict().values()}


def everywhere(pipeline: Pipeline) -> dict[str, set[str]]:
    return {part: places(network) for part, network in pipeline.cascade.networks.items()}


def all_at(pipeline: Pipeline, place: str) -> dict[str, set[str]]:
    return {part: {place} for part in pipeline.cascade.networks}


def test_low_memory_makes_the_same_bits(normal, low):
    for settings in (
        {"num_images_per_prompt": 2, "prior_guidance_scale": 3.0},
        {"decoder_guidance_scale": 2.0, "prior_sampler": "heun", "negative_prompt": "two birds"},
    ):
        assert torch.equal(pixels(low, **settings), pixels(normal, **settings))


def test_one_component_at_a_time_is_in_memory_and_none_before_and_after(low):
    seen: dict[str, dict[str, set[str]]] = {}
    for part, network in low.cascade.networks.items():
        network.register_forward_pre_hook(
            lambda *_, part=part: seen.update({part: everywhere(low)}) and None
        )
    low.cascade.stage_a.up_blocks.register_forward_pre_hook(
        lambda *_: seen.update(stage_a=everywhere(low)) and None
    )
    assert everywhere(low) == all_at(low, "meta")
    pixels(low)
    assert everywhere(low) == all_at(low, "meta")
    assert len(seen) == 5
    for part, found in seen.items():
        assert found == {**all_at(low, "meta"), part: {"cpu"}}


@pytest.mark.parametrize("stage", ["Stage C", "Stage B"])
def test_an_error_in_the_middle_of_a_stage_releases_its_weights(normal, low, stage):
    def stop(name: str, done: int, total: int) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pixels(low, on_step=stop)
    assert everywhere(low) == all_at(low, "meta")
    assert torch.equal(pixels(low), pixels(normal))


def test_the_dtype_is_chosen_when_the_model_is_opened(folder):
    low = Pipeline.from_pretrained(folder, low_memory=True, torch_dtype=torch.bfloat16)
    normal = Pipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert torch.equal(pixels(low), pixels(normal))
    with pytest.raises(ConfigError, match="pass torch_dtype= there"):
        low.to(dtype=torch.float32)


def test_the_device_can_be_chosen_at_any_time(normal, low):
    assert low.to("cpu") is low and low.device == torch.device("cpu")
    assert low.to("meta").device == torch.device("meta")
    low.to("cpu")
    assert torch.equal(pixels(low), pixels(normal))


def test_weights_that_are_not_in_memory_are_not_saved(low, tmp_path):
    with pytest.raises(ConfigError, match="open it without low_memory"):
        low.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_lora_works_live_without_weights_in_memory_and_is_not_fused(folder, low, tmp_path):
    path = write_lora(tmp_path / "style.safetensors", low)
    plain = pixels(low)
    other = Pipeline.from_pretrained(folder)
    for pipeline in (low, other):
        pipeline.load_lora_weights(path, weight=0.8)
    assert torch.equal(pixels(low), pixels(other))
    assert difference(pixels(low), plain) > 1e-3
    with pytest.raises(ConfigError, match="cannot be fused"):
        low.fuse_lora()
    low.unload_lora_weights()
    assert torch.equal(pixels(low), plain)


@pytest.mark.parametrize("times", [1, 2])
def test_offloading_makes_the_same_bits_and_brings_weights_back_to_the_cpu(folder, normal, times):
    pipeline = Pipeline.from_pretrained(folder)
    for _ in range(times):
        pipeline.enable_model_cpu_offload("cpu")
    assert pipeline.cascade.low_memory
    assert torch.equal(pixels(pipeline), pixels(normal))
    assert everywhere(pipeline) == all_at(pipeline, "cpu")


@pytest.mark.parametrize("times", [1, 2])
def test_offloading_moves_a_stage_to_the_requested_device_and_back(folder, monkeypatch, times):
    pipeline = Pipeline.from_pretrained(folder)
    for _ in range(times):
        pipeline.enable_model_cpu_offload("cuda:1")
    assert pipeline.device == torch.device("cuda:1")
    assert everywhere(pipeline) == all_at(pipeline, "cpu")
    moves: list[torch.device] = []
    monkeypatch.setattr(
        pipeline.cascade.stage_c, "to", lambda place: moves.append(torch.device(place))
    )
    with (
        pytest.raises(ZeroDivisionError),
        pipeline.cascade._residence.loaded(pipeline.cascade.stage_c),
    ):
        moves.append(1 // 0)
    assert moves == [torch.device("cuda:1"), torch.device("cpu")]


def test_offloading_a_model_whose_weights_are_on_disk_only_moves_its_work(normal, low):
    low.enable_model_cpu_offload("meta")
    assert low.device == torch.device("meta")
    low.enable_model_cpu_offload("cpu")
    assert torch.equal(pixels(low), pixels(normal))
    assert everywhere(low) == all_at(low, "meta")


def test_with_low_memory_stage_a_decodes_large_images_in_strips(normal, low, monkeypatch):
    monkeypatch.setattr("wuerstchen.inference.cascade.STRIP_CELLS", 32 * 5)
    taken: list[int] = []
    decode = type(low.cascade.stage_a).decode
    monkeypatch.setattr(
        type(low.cascade.stage_a),
        "decode",
        lambda self, x: taken.append(x.shape[2]) or decode(self, x),
    )
    found = pixels(low)
    assert len(taken) == 7 and max(taken) < 32
    assert float((found - pixels(normal)).abs().max()) < 1e-5
    assert taken[7:] == [32]


def test_a_deleted_file_is_an_error_and_leaves_nothing_behind(folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    pipeline = Pipeline.from_pretrained(copy, low_memory=True)
    (weights,) = (copy / "decoder").glob("*.safetensors")
    weights.unlink()
    with pytest.raises(ModelFolderError, match=str(weights)):
        pipeline(PROMPT)
    assert everywhere(pipeline) == all_at(pipeline, "meta")
