"""A network that does not predict the noise is saved and loaded as such."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from wuerstchen import Pipeline, weights
from wuerstchen.config import CompressorModel, StageBModel, StageCModel
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

SIZES = {"semantic_channels": 6, "width": 16, "depth": 1, "heads": 2, "text_width": 16}


@pytest.fixture
def flowing(folder: Path, tmp_path: Path) -> Path:
    """The small model with a prior that predicts flow."""
    model = Path(shutil.copytree(folder, tmp_path / "flowing"))
    before = weights.stage_c.load(model)
    network = StageC(before.config.model_copy(update={"predicts": "flow"}))
    network.load_state_dict(before.state_dict())
    weights.stage_c.save(model, network)
    weights.write_index(model)
    return model


@pytest.mark.parametrize("predicts", ["v", "flow", "data"])
def test_what_it_predicts_is_saved_and_loaded(tmp_path: Path, predicts: str) -> None:
    network = StageC(StageCModel.model_validate({**SIZES, "time_width": 8, "predicts": predicts}))
    torch.nn.init.normal_(network.head[1].weight, std=0.1)  # type: ignore[arg-type]
    weights.stage_c.save(tmp_path, network)
    loaded = weights.stage_c.load(tmp_path)
    x, t = torch.randn(2, 6, 3, 3), torch.tensor([0.2, 0.9])
    text = torch.randn(2, 4, 16)
    with torch.no_grad():
        expected = network.eval()(x, t, network.condition(text))
        assert torch.equal(loaded.eval()(x, t, loaded.condition(text)), expected)


@pytest.mark.parametrize(
    ("predicts", "subpixel"), [("v", 0), ("data", 0), ("noise", 3), ("data", 3)]
)
def test_a_stage_b_of_our_own_class_is_saved_and_loaded(
    tmp_path: Path, predicts: str, subpixel: int
) -> None:
    sizes = {"widths": [8, 16], "blocks": [1, 1], "heads": [0, 2], "semantics": [False, True]}
    sizes |= {"semantic_channels": 6, "condition_width": 8, "text_width": 8, "time_width": 8}
    own = {"predicts": predicts, "subpixel_channels": subpixel}
    network = StageB(StageBModel.model_validate({**sizes, **own}))
    torch.nn.init.normal_(network.head[1].weight, std=0.1)  # type: ignore[arg-type]
    weights.stage_b.save(tmp_path, network)
    config = json.loads((tmp_path / "decoder" / "config.json").read_text())
    assert config["_class_name"] == "WuerstchenStageB"
    loaded = weights.stage_b.load(tmp_path)
    assert loaded.config == network.config
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.9])
    semantics, text = torch.randn(2, 6, 3, 3), torch.zeros(2, 4, 8)
    with torch.no_grad():
        answers = [
            each.eval()(x, t, each.condition(semantics, text, (16, 16)))
            for each in (network, loaded)
        ]
    assert torch.equal(*answers)


def test_a_compressor_with_a_patch_embedding_is_saved_and_loaded(tmp_path: Path) -> None:
    sizes = {"channels": 6, "width": 0.25, "depth": 0.1, "patch_embedding": True}
    network = Compressor(CompressorModel.model_validate(sizes)).eval()
    weights.compressor.save(tmp_path, network)
    loaded, image = weights.compressor.load(tmp_path).eval(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(image), network(image))
        network.patch_embedding[-1].weight.zero_()  # type: ignore[index, operator, union-attr]
        assert not torch.equal(loaded(image), network(image))


def test_diffusers_refuses_a_prior_that_it_would_sample_wrongly(flowing: Path) -> None:
    from diffusers import DiffusionPipeline

    index = json.loads((flowing / "model_index.json").read_text())
    assert index["prior_prior"] == ["wuerstchen.models.stage_c", "WuerstchenStageC"]
    with pytest.raises((AttributeError, ImportError, ValueError, EnvironmentError)):
        DiffusionPipeline.from_pretrained(flowing)


def test_the_pipeline_generates_with_it(flowing: Path, folder: Path) -> None:
    images = [
        Pipeline.from_pretrained(path)(
            "a red apple", 128, 128, 2, num_inference_steps=2, seed=1, output_type="pt"
        ).images
        for path in (flowing, folder)
    ]
    assert not torch.equal(*map(torch.as_tensor, images))
