"""Alphas and ranks in every place where tools state them, and what is said of the rest."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from hand_made import Networks, halves, write
from torch import Tensor

from wuerstchen.errors import ModelFolderError, UnusedWarning
from wuerstchen.lora import Lora, read_lora

RANK = 4
LAYERS = ("blocks.2.attention.to_q", "blocks.0.channelwise.0")


def tensors(nets: Networks, key: str = "prior.{}", alpha: float | None = None) -> dict[str, Tensor]:
    found = {}
    for name in LAYERS:
        down, up = halves(nets.stage_c.get_submodule(name), RANK)
        module = key.format(name.replace(".", "_") if key.startswith("lora_") else name)
        style = ("lora_down", "lora_up") if key.startswith("lora_") else ("lora_A", "lora_B")
        found |= {f"{module}.{style[0]}.weight": down, f"{module}.{style[1]}.weight": up}
        if alpha is not None:
            found[f"{module}.alpha"] = torch.tensor(alpha)
    return found


def read(path: Path, nets: Networks) -> Lora:
    return read_lora(path, stage_c=nets.stage_c, stage_b=nets.stage_b, text_c=nets.text_c)


def scales(lora: Lora) -> list[float]:
    return [lora.layers["stage_c"][name].scale for name in LAYERS]


ONLY_Q = {"blocks.2.attention.to_q": 16}

USED: list[tuple[dict[str, str], list[float]]] = [
    ({"prior.lora_alpha": "16", "prior.r": "4"}, [4, 4]),
    ({"lora_alpha": "16", "r": "4"}, [4, 4]),
    ({"lora_alpha": "16.0", "rank": "4"}, [4, 4]),
    ({"alpha": "2"}, [0.5, 0.5]),
    ({"network_alpha": "8", "network_dim": "4"}, [2, 2]),
    ({"ss_network_alpha": "8", "ss_network_dim": "4"}, [2, 2]),
    ({"ss_network_alpha": "None", "ss_network_dim": "Dynamic"}, [1, 1]),
    ({"lora.alpha": "8", "lora.rank": "4"}, [2, 2]),
    ({"lora_alpha": "8", "use_rslora": "True"}, [4, 4]),
    ({"lora_alpha": "8", "use_rslora": "False"}, [2, 2]),
    ({"prior.lora_alpha": "8", "decoder.lora_alpha": "64", "alpha": "4"}, [2, 2]),
    ({"decoder.lora_alpha": "64", "alpha": "8"}, [2, 2]),
    ({"lora_alpha": "4", "alpha_pattern": json.dumps(ONLY_Q)}, [4, 1]),
    ({"prior.alpha_pattern": json.dumps(ONLY_Q)}, [4, 1]),
    ({"lora_alpha": "4", "rank_pattern": json.dumps({"to_q": 4})}, [1, 1]),
    ({"peft_config": json.dumps({"r": 4, "lora_alpha": 16})}, [4, 4]),
    ({"config": json.dumps({"prior": {"r": 4, "lora_alpha": 16}})}, [4, 4]),
    ({"lora_adapter_metadata": json.dumps({"prior.lora_alpha": 16, "prior.r": 4})}, [4, 4]),
    ({"lora_adapter_metadata": json.dumps({"prior": {"lora_alpha": 16, "r": 4}})}, [4, 4]),
    ({"lora_adapter_metadata": json.dumps({"lora_alpha": 16}), "lora_alpha": "16"}, [4, 4]),
    ({"use_dora": "False", "peft_type": "LORA", "format": "pt", "alpha": "none"}, [1, 1]),
]


@pytest.mark.parametrize(("metadata", "expected"), USED, ids=lambda value: str(value)[:60])
def test_alphas_are_used_wherever_they_are_stated(
    nets: Networks, tmp_path: Path, metadata: dict[str, str], expected: list[float]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(write(tmp_path / "a.safetensors", tensors(nets), metadata), nets)
    assert scales(found) == pytest.approx(expected)


@pytest.mark.parametrize("prefix", ["prior", "lora_prior_unet"])
def test_a_network_of_the_metadata_is_the_one_of_the_keys(
    nets: Networks, tmp_path: Path, prefix: str
) -> None:
    made = tensors(nets, "lora_prior_unet_{}")
    metadata = {f"{prefix}.lora_alpha": "16", "text_encoder.lora_alpha": "1"}
    assert scales(read(write(tmp_path / "a.safetensors", made, metadata), nets)) == [4, 4]


@pytest.mark.parametrize(
    ("metadata", "expected", "words"),
    [
        ({"lora_alpha": "much"}, 1, "alpha in its metadata is 'much'.*not used"),
        ({"alpha": "nan"}, 1, "alpha in its metadata is 'nan'"),
        ({"lora_alpha": "-1"}, 1, "not a positive number"),
        ({"alpha_unet": "16"}, 1, r"alpha_unet in its metadata is not understood .*\(16\)"),
        ({"lora_scale": "4"}, 1, "lora_scale in its metadata is not understood"),
        ({"mystery.lora_alpha": "16"}, 1, "mystery.… in its metadata names no network"),
        ({"lora_alpha": "8", "r": "2"}, 2, "rank of 2, but prior.*has 4; the rank of the tensors"),
        ({"alpha_pattern": '{"nothing": 3}'}, 1, "alpha_pattern.*'nothing' matches no layer"),
        ({"alpha_pattern": "{to_q"}, 1, "alpha_pattern in its metadata is not used"),
        ({"peft_config": '{"lora_alpha": 16'}, 1, "peft_config in its metadata is not used"),
        (
            {"lora_adapter_metadata": '{"lora_alpha": 8, "wobble": 3}'},
            2,
            "wobble in lora_adapter_metadata is unknown and not used",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    nets: Networks, tmp_path: Path, metadata: dict[str, str], expected: float, words: str
) -> None:
    path = write(tmp_path / "a.safetensors", tensors(nets), metadata)
    with pytest.warns(UnusedWarning, match=words):
        found = read(path, nets)
    assert scales(found) == [expected, expected]


def test_alphas_of_tensors_count_and_others_are_named(nets: Networks, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", tensors(nets, alpha=2), {"lora_alpha": "16"})
    with pytest.warns(UnusedWarning, match="states an alpha of 16 .* a tensor with 2; the tensor"):
        assert scales(read(path, nets)) == [0.5, 0.5]
    made = tensors(nets, "lora_prior_unet_{}", alpha=2)
    path = write(tmp_path / "k.safetensors", made, {"ss_network_alpha": "8", "ss_tag": "{"})
    with warnings.catch_warnings():  # kohya states that of the linear layers only
        warnings.simplefilter("error")
        assert scales(read(path, nets)) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"use_dora": "True"}, "use_dora in its config: DoRA"),
        ({"prior.use_dora": "1"}, "prior.use_dora in its config: DoRA"),
        ({"lora_adapter_metadata": '{"prior.use_dora": true}'}, "DoRA cannot be opened"),
        ({"peft_type": "LOHA"}, "expected the peft_type LORA, found LOHA"),
        ({"lora_adapter_metadata": '{"init_lora_weights": "pissa_niter_4"}'}, "relative to base"),
        ({"lora_adapter_metadata": '{"layer_replication": [[0, 4]]}'}, "replicated layers"),
        ({"lora_adapter_metadata": '{"lora_alpha": [1]}'}, "expected a number for the alpha"),
    ],
)
def test_other_kinds_of_adapters_are_refused_wherever_they_say_so(
    nets: Networks, tmp_path: Path, metadata: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelFolderError, match=words):
        read(write(tmp_path / "a.safetensors", tensors(nets), metadata), nets)
