"""Weights that are in memory only while their stage works: same images, and nothing left over."""

import shutil

import pytest
import torch
from drawn import PROMPT, difference, pixels
from small_lora import write_lora
from torch import nn

from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.inference.pipeline import Pipeline


@pytest.fixture(scope="module")
def normal(folder) -> Pipeline:
    return Pipeline.from_pretrained(folder)


@pytest.fixture
def frugal(folder) -> Pipeline:
    return Pipeline.from_pretrained(folder, low_memory=True)


def places(network: nn.Module) -> set[str]:
    """Devices of the weights."""
    return {tensor.device.type for tensor in network.state_dict().values()}


def everywhere(pipeline: Pipeline) -> dict[str, set[str]]:
    return {part: places(network) for part, network in pipeline.cascade.networks.items()}


def all_at(pipeline: Pipeline, place: str) -> dict[str, set[str]]:
    return {part: {place} for part in pipeline.cascade.networks}


def test_low_memory_draws_the_same_bits(normal, frugal):
    for settings in (
        {"num_images_per_prompt": 2, "prior_guidance_scale": 3.0},
        {"decoder_guidance_scale": 2.0, "prior_sampler": "heun", "negative_prompt": "two birds"},
    ):
        assert torch.equal(pixels(frugal, **settings), pixels(normal, **settings))


def test_one_part_at_a_time_is_in_memory_and_none_before_and_after(frugal):
    seen: dict[str, dict[str, set[str]]] = {}
    for part, network in frugal.cascade.networks.items():
        network.register_forward_pre_hook(
            lambda *_, part=part: seen.update({part: everywhere(frugal)}) and None
        )
    frugal.cascade.stage_a.up_blocks.register_forward_pre_hook(
        lambda *_: seen.update(stage_a=everywhere(frugal)) and None
    )
    assert everywhere(frugal) == all_at(frugal, "meta")
    pixels(frugal)
    assert everywhere(frugal) == all_at(frugal, "meta")
    assert len(seen) == 5
    for part, found in seen.items():
        assert found == {**all_at(frugal, "meta"), part: {"cpu"}}


@pytest.mark.parametrize("stage", ["Stage C", "Stage B"])
def test_an_error_in_the_middle_of_a_stage_lets_its_weights_go(normal, frugal, stage):
    def stop(name: str, done: int, total: int) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pixels(frugal, on_step=stop)
    assert everywhere(frugal) == all_at(frugal, "meta")
    assert torch.equal(pixels(frugal), pixels(normal))


def test_the_type_of_numbers_is_chosen_when_the_model_is_opened(folder):
    frugal = Pipeline.from_pretrained(folder, low_memory=True, torch_dtype=torch.bfloat16)
    normal = Pipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert torch.equal(pixels(frugal), pixels(normal))
    with pytest.raises(ConfigError, match="pass torch_dtype= there"):
        frugal.to(dtype=torch.float32)


def test_the_place_of_the_work_can_be_chosen_at_any_time(normal, frugal):
    assert frugal.to("cpu") is frugal and frugal.device == torch.device("cpu")
    assert frugal.to("meta").device == torch.device("meta")
    frugal.to("cpu")
    assert torch.equal(pixels(frugal), pixels(normal))


def test_what_is_not_in_memory_is_not_saved(frugal, tmp_path):
    with pytest.raises(ConfigError, match="open it without low_memory"):
        frugal.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_lora_works_live_without_weights_in_memory_and_is_not_fused(folder, frugal, tmp_path):
    path = write_lora(tmp_path / "style.safetensors", frugal)
    plain = pixels(frugal)
    other = Pipeline.from_pretrained(folder)
    for pipeline in (frugal, other):
        pipeline.load_lora_weights(path, weight=0.8)
    assert torch.equal(pixels(frugal), pixels(other))
    assert difference(pixels(frugal), plain) > 1e-3
    with pytest.raises(ConfigError, match="cannot be fused"):
        frugal.fuse_lora()
    frugal.unload_lora_weights()
    assert torch.equal(pixels(frugal), plain)


@pytest.mark.parametrize("times", [1, 2])
def test_offloading_draws_the_same_bits_and_brings_weights_back_to_the_cpu(folder, normal, times):
    pipeline = Pipeline.from_pretrained(folder)
    for _ in range(times):
        pipeline.enable_model_cpu_offload("cpu")
    assert pipeline.cascade.low_memory
    assert torch.equal(pixels(pipeline), pixels(normal))
    assert everywhere(pipeline) == all_at(pipeline, "cpu")


@pytest.mark.parametrize("times", [1, 2])
def test_offloading_moves_a_stage_to_where_it_was_told_and_back(folder, monkeypatch, times):
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


def test_offloading_a_model_whose_weights_are_on_disk_only_moves_its_work(normal, frugal):
    frugal.enable_model_cpu_offload("meta")
    assert frugal.device == torch.device("meta")
    frugal.enable_model_cpu_offload("cpu")
    assert torch.equal(pixels(frugal), pixels(normal))
    assert everywhere(frugal) == all_at(frugal, "meta")


def test_short_of_memory_stage_a_decodes_large_images_in_strips(normal, frugal, monkeypatch):
    monkeypatch.setattr("wuerstchen.inference.cascade.STRIP_CELLS", 32 * 5)
    taken: list[int] = []
    decode = type(frugal.cascade.stage_a).decode
    monkeypatch.setattr(
        type(frugal.cascade.stage_a),
        "decode",
        lambda self, x: taken.append(x.shape[2]) or decode(self, x),
    )
    found = pixels(frugal)
    assert len(taken) == 7 and max(taken) < 32
    assert float((found - pixels(normal)).abs().max()) < 1e-5
    assert taken[7:] == [32]


def test_a_file_that_is_gone_is_an_error_and_leaves_nothing_behind(folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    pipeline = Pipeline.from_pretrained(copy, low_memory=True)
    (weights,) = (copy / "decoder").glob("*.safetensors")
    weights.unlink()
    with pytest.raises(ModelFolderError, match=str(weights)):
        pipeline(PROMPT)
    assert everywhere(pipeline) == all_at(pipeline, "meta")
