"""`wuerstchen inspect`: descriptions of files of every kind."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wuerstchen import weights
from wuerstchen.cli import main
from wuerstchen.config import StageCModel
from wuerstchen.models.stage_c import StageC

BUNDLED = Path(__file__).parents[2] / "src" / "wuerstchen" / "bundled" / "stickers"


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["wuerstchen", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, error = capsys.readouterr()
        if left.value.code:
            assert left.value.code == 2 and out == ""
            return error
        assert error == ""
        return out

    return run


def lora(path: Path, *keys: str) -> Path:
    save_file({key: torch.zeros(4, 8) for key in keys}, path)
    return path


def test_a_whole_model_is_described_by_its_components(inspect) -> None:
    text = inspect(BUNDLED)
    assert "a whole model" in text and "version 2 of Würstchen" in text
    assert "semantics of 32 channels; text encoder of width 8" in text
    values = json.loads(inspect(BUNDLED, "--json"))
    components = {component["title"]: component for component in values["components"]}
    assert next(iter(components)) == "Stage A" and len(components) == 6
    assert components["Stage C"]["parameters"] == 11_270_144
    assert components["Stage C"]["dtypes"] == ["float16"]
    assert components["Stage C"]["sizes"]["depth"] == 8
    assert values["size"] == sum(p.stat().st_size for p in BUNDLED.rglob("*") if p.is_file())
    assert values["licence"] == "see its file LICENSE"


@pytest.mark.parametrize(
    ("component", "what", "fits"),
    [
        ("vqgan", "Stage A", "latents of 4 channels"),
        ("decoder", "Stage B", "text encoder of width 8"),
        ("prior_prior", "Stage C", "semantics of 32 channels"),
        ("compressor", "the compressor", "semantics of 32 channels"),
        ("text_encoder", "a text encoder", "text of width 8"),
    ],
)
def test_a_single_component_is_identified(inspect, component: str, what: str, fits: str) -> None:
    text = inspect(BUNDLED / component)
    assert f"what        {what}\n" in text and fits in text


def test_parameters_are_those_that_torch_counts(inspect, tmp_path: Path) -> None:
    network = StageC(StageCModel(width=64, depth=1, heads=1, text_width=8, time_width=8))
    weights.stage_c.save(tmp_path, network, torch.bfloat16)
    [component] = json.loads(inspect(tmp_path / "prior_prior", "--json"))["components"]
    assert component["parameters"] == sum(p.numel() for p in network.parameters())
    assert component["size"] == 2 * component["parameters"]


@pytest.mark.parametrize(
    ("style", "keys"),
    [
        (
            "diffusers",
            ("blocks.2.attention.to_q.lora_A.weight", "blocks.2.attention.to_q.lora_B.weight"),
        ),
        ("PEFT", ("base_model.model.blocks.2.attention.to_q.lora_A.weight",)),
        ("diffusers", ("prior.blocks.2.attention.to_q.lora_linear_layer.down.weight",)),
        ("StableCascade", ("blocks.2.attention.attn.in_proj_weight.lora_A",)),
        ("kohya", ("lora_prior_blocks_2_to_q.lora_down.weight", "lora_prior_blocks_2_to_q.alpha")),
        (
            "OneTrainer",
            ("lora_prior_unet.blocks.2.attention.to_q.lora_down.weight", "bundle_emb.x"),
        ),
    ],
)
def test_a_lora_is_identified_with_its_style(inspect, tmp_path: Path, style: str, keys) -> None:
    found = inspect(lora(tmp_path / "x.safetensors", *keys))
    assert f"a LoRA ({style} style)" in found and "Stage C" in found


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lora_unet_down_blocks_1_attentions_0_to_q.lora_down.weight", "Stable Diffusion or SDXL"),
        ("prior.down_blocks.0.1.channelwise.0.lora_A.weight", "Stable Cascade (version 3"),
        ("blocks.2.attention.to_q.hada_w1_a", "a LoHa"),
        ("blocks.2.attention.to_q.dora_scale", "a DoRA"),
    ],
)
def test_adapters_that_do_not_open_are_named(
    inspect, tmp_path: Path, key: str, expected: str
) -> None:
    assert expected in inspect(lora(tmp_path / "x.safetensors", key))


def test_a_folder_of_peft_is_a_lora(inspect, tmp_path: Path) -> None:
    (tmp_path / "style").mkdir()
    (tmp_path / "style/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    lora(
        tmp_path / "style/adapter_model.safetensors",
        "base_model.model.blocks.2.attention.to_q.lora_A.weight",
    )
    assert "a LoRA (PEFT style)" in inspect(tmp_path / "style")


def test_a_folder_of_one_variant_is_described_on_request(inspect, tmp_path: Path) -> None:
    weights.stage_c.save(tmp_path, StageC(StageCModel(width=64, depth=1, heads=1)))
    path = tmp_path / "prior_prior/diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert "Stage C" in inspect(tmp_path / "prior_prior", "--variant", "fp16")


@pytest.mark.parametrize(
    ("licence", "metadata", "card"),
    [
        ("mit", None, "---\nlicense: mit\n---\n# A model\n"),
        ("not stated", None, "# A model without a table\n"),
        ("cc-by-4.0", {"modelspec.license": "cc-by-4.0"}, None),
        ("not stated", {"format": "pt"}, None),
    ],
)
def test_only_a_stated_licence_is_reported(
    inspect, tmp_path: Path, licence: str, metadata: dict[str, str] | None, card: str | None
) -> None:
    config = StageCModel(width=64, depth=1, heads=1, text_width=8, time_width=8)
    weights.stage_c.save(tmp_path, StageC(config))
    path = tmp_path / "prior_prior"
    if card is not None:
        (path / "README.md").write_text(card)
    else:
        path = tmp_path / "x.safetensors"
        save_file({"a.lora_A.weight": torch.zeros(2, 2)}, path, metadata=metadata)
    assert json.loads(inspect(path, "--json"))["licence"] == licence


def test_stable_cascade_is_named_with_what_it_needs(inspect, tmp_path: Path) -> None:
    keys = {"embedding.1.weight": (8, 16, 1, 1), "clip_txt_mapper.weight": (2048, 1280)}
    save_file({key: torch.zeros(shape) for key, shape in keys.items()}, tmp_path / "c.safetensors")
    text = inspect(tmp_path / "c.safetensors")
    assert "Stable Cascade (version 3 of Würstchen)" in text
    assert "StableCascadePriorPipeline" in text


@pytest.mark.parametrize("what", ["nothing", "foreign keys", "text", "empty folder"])
def test_a_path_without_a_model_is_one_sentence(inspect, tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.safetensors"
    if what == "foreign keys":
        save_file({"colour": torch.zeros(3)}, path)
    elif what == "text":
        path.write_text("hello")
    elif what == "empty folder":
        path.mkdir()
    error = inspect(path)
    assert str(path) in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_hub_id_is_looked_up_only_in_the_cache(
    inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "in the local cache of the hub failed" in inspect("nobody/nothing")


def test_a_model_without_a_vocabulary_is_reported_incomplete(inspect, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights.resolve().source, tmp_path / "model"))
    assert "Incomplete" not in inspect(folder)
    (folder / "prior_tokenizer/tokenizer.json").unlink()
    found = inspect(folder)
    assert "Incomplete" in found and "prior_tokenizer/tokenizer.json is missing" in found
