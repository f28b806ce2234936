"""LoRAs with every tool's keys equal merging by hand."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hand_made import Networks, answer_b, answer_c, change, halves, merged, write
from torch import Tensor

from wuerstchen.config import StageBModel, StageCModel
from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.lora import Adapters, Lora, parse_lora, read_lora
from wuerstchen.lora.keys import foreign
from wuerstchen.lora.layers import PREFIXES, aliases, all_targets, find, layers_of
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

RANK = 3
# Our name to the published one, written out by hand from the published configs and manifests.
LAYERS_C = {
    "blocks.2.attention.to_q": "blocks.2.attention.to_q",
    "blocks.5.attention.to_out.0": "blocks.5.attention.to_out.0",
    "blocks.2.kv_mapper.1": "blocks.2.kv_mapper.1",
    "blocks.0.channelwise.0": "blocks.0.channelwise.0",
    "blocks.1.mapper": "blocks.1.mapper",
    "text_mapper.0": "cond_mapper.0",
    "projection": "projection",  # a 1x1 convolution, as is the next
    "head.1": "out.1",
}
LAYERS_B = {
    "down_blocks.1.3.attention.to_v": "down_blocks.1.3.attention.to_v",
    "up_blocks.0.0.channelwise.4": "up_blocks.0.0.channelwise.4",
    "text_mapper": "clip_mapper",
    "head.1": "clf.1",
    "down_blocks.1.0.1": "down_blocks.1.0.1",  # a 2x2 convolution with stride
}

Halves = dict[str, tuple[Tensor, Tensor]]


def made(network: StageC | StageB, names: Mapping[str, str]) -> Halves:
    return {
        ours: halves(network.get_submodule(ours), RANK, seed=2 * index)
        for index, ours in enumerate(names)
    }


def named(
    layers: Halves, names: Mapping[str, str], key: Callable[[str], str], down: str, up: str
) -> dict[str, Tensor]:
    found = {}
    for ours, (a, b) in layers.items():
        found[f"{key(names[ours])}{down}"], found[f"{key(names[ours])}{up}"] = a, b
    return found


def kohya(prefix: str) -> Callable[[str], str]:
    return lambda name: f"{prefix}_{name.replace('.', '_')}"


def read(path: Path, nets: Networks, allow_unmatched: bool = False) -> Lora:
    return read_lora(
        path,
        stage_c=nets.stage_c,
        stage_b=nets.stage_b,
        text_c=nets.text_c,
        allow_unmatched=allow_unmatched,
    )


def assert_like_merged(nets: Networks, lora: Lora, layers: Halves, scale: float) -> None:
    """The live network and the one merged by hand agree, and the LoRA matters."""
    (kind,) = lora.layers
    changes = {name: change(*pair, scale) for name, pair in layers.items()}
    if kind == "stage_c":
        before, expected = answer_c(nets.stage_c), answer_c(merged(nets.stage_c, changes))
        Adapters(nets.by_name()).add("a", lora)
        found = answer_c(nets.stage_c)
    else:
        before, expected = answer_b(nets.stage_b), answer_b(merged(nets.stage_b, changes))
        Adapters(nets.by_name()).add("a", lora)
        found = answer_b(nets.stage_b)
    assert (expected - before).norm() > 1e-3 * before.norm()  # a hundred times the tolerance
    assert (found - expected).norm() <= 1e-5 * expected.norm()


STYLES: list[tuple[str, str, Callable[[str], str], str, str]] = [
    ("diffusers", "prior", lambda n: f"prior.{n}", ".lora_A.weight", ".lora_B.weight"),
    ("diffusers", "unet", lambda n: f"unet.{n}", ".lora.down.weight", ".lora.up.weight"),
    ("diffusers", "bare", lambda n: n, ".lora_A.default.weight", ".lora_B.default.weight"),
    ("kohya", "prior", kohya("lora_prior_unet"), ".lora_down.weight", ".lora_up.weight"),
    ("kohya", "unet", kohya("lora_unet"), ".lora_down.weight", ".lora_up.weight"),
    ("onetrainer", "old", kohya("lora_prior_prior"), ".lora_down.weight", ".lora_up.weight"),
    (
        "onetrainer",
        "dots",
        lambda n: f"lora_prior_unet.{n}",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
]


@pytest.mark.parametrize(("format_", "_", "key", "down", "up"), STYLES)
def test_stage_c_loras_of_every_style_equal_merging_by_hand(
    nets: Networks,
    tmp_path: Path,
    format_: str,
    _: str,
    key: Callable[[str], str],
    down: str,
    up: str,
) -> None:
    layers = made(nets.stage_c, LAYERS_C)
    lora = read(
        write(tmp_path / "any name.safetensors", named(layers, LAYERS_C, key, down, up)), nets
    )
    assert (lora.format, tuple(lora.layers), lora.ranks) == (format_, ("stage_c",), (RANK,))
    assert set(lora.layers["stage_c"]) == set(LAYERS_C)
    assert_like_merged(nets, lora, layers, 1.0)  # no alpha: it is the rank


@pytest.mark.parametrize(
    "key", [kohya("lora_unet"), lambda n: f"decoder.{n}", lambda n: f"base_model.model.{n}"]
)
def test_stage_b_loras_with_alphas_equal_merging_by_hand(
    nets: Networks, tmp_path: Path, key: Callable[[str], str]
) -> None:
    layers = made(nets.stage_b, LAYERS_B)
    tensors = named(layers, LAYERS_B, key, ".lora_down.weight", ".lora_up.weight")
    tensors |= {f"{key(name)}.alpha": torch.tensor(1.5) for name in LAYERS_B.values()}
    lora = read(write(tmp_path / "b.safetensors", tensors), nets)
    assert_like_merged(nets, lora, layers, 1.5 / RANK)


def test_a_semantics_mapper_of_stage_b_can_have_a_lora(nets: Networks, tmp_path: Path) -> None:
    names = {"semantics_mappers.1": "effnet_mappers.1"}
    layers = made(nets.stage_b, names)
    tensors = named(layers, names, kohya("lora_unet"), ".lora_down.weight", ".lora_up.weight")
    lora = read(write(tmp_path / "s.safetensors", tensors), nets)
    assert_like_merged(nets, lora, layers, 1.0)


def test_processor_keys_of_early_diffusers_are_understood(nets: Networks, tmp_path: Path) -> None:
    names = ("to_q", "to_k", "to_v", "to_out.0")
    layers = {
        f"blocks.2.attention.{name}": halves(
            nets.stage_c.blocks[2].get_submodule(f"attention.{name}"), 2, i
        )
        for i, name in enumerate(names)
    }
    tensors = {}
    for name, (down, up) in layers.items():
        short = name.rpartition(".attention.")[2].removesuffix(".0")
        tensors[f"unet.blocks.2.attention.processor.{short}_lora.down.weight"] = down
        tensors[f"unet.blocks.2.attention.processor.{short}_lora.up.weight"] = up
    lora = read(write(tmp_path / "p.safetensors", tensors), nets)
    assert_like_merged(nets, lora, layers, 1.0)


@pytest.mark.parametrize(
    ("down_key", "up_key", "alpha"),
    [
        ("in_proj_weight.lora_down.weight", "in_proj_weight.lora_up.weight", 2.0),
        ("in_proj.lora_A.weight", "in_proj.lora_B.weight", 2.0),
        # StableCascade's modules/lora.py multiplies with 1 / rank.
        (
            "parametrizations.in_proj_weight.0.lora_down",
            "parametrizations.in_proj_weight.0.lora_up",
            1.0,
        ),
    ],
)
def test_a_joint_projection_is_split_into_q_k_and_v(
    nets: Networks, tmp_path: Path, down_key: str, up_key: str, alpha: float
) -> None:
    attention = "blocks.2.attention"
    down, up = halves(nets.stage_c.get_submodule(f"{attention}.to_q"), 2, joint=3)
    out = halves(nets.stage_c.get_submodule(f"{attention}.to_out.0"), 2, seed=7)
    tensors = {
        f"{attention}.attn.{down_key}": down,
        f"{attention}.attn.{up_key}": up,
        f"{attention}.attn.out_proj.lora_down.weight": out[0],
        f"{attention}.attn.out_proj.lora_up.weight": out[1],
        f"{attention}.attn.out_proj.alpha": torch.tensor(alpha),
    }
    if alpha == 2.0:
        module = down_key.partition(".")[0]
        tensors[f"{attention}.attn.{module}.alpha"] = torch.tensor(alpha)
    lora = read(write(tmp_path / "o.safetensors", tensors), nets)
    assert lora.format == "original"
    width = len(up) // 3
    layers = {
        f"{attention}.to_{x}": (down, up[i * width : (i + 1) * width]) for i, x in enumerate("qkv")
    }
    assert_like_merged(nets, lora, {**layers, f"{attention}.to_out.0": out}, alpha / 2)


@pytest.mark.parametrize(
    "names", [("in_proj_0", "in_proj_1", "in_proj_2"), ("to_q", "to_k", "to_v")]
)
def test_the_thirds_that_onetrainer_names_are_q_k_and_v(
    nets: Networks, tmp_path: Path, names: tuple[str, str, str]
) -> None:
    attention = "down_blocks.1.3.attention"
    layers = {
        f"{attention}.to_{x}": halves(nets.stage_b.get_submodule(f"{attention}.to_{x}"), 2, i)
        for i, x in enumerate("qkv")
    }
    tensors = {}
    for name, (down, up) in zip(names, layers.values(), strict=True):
        key = f"lora_unet_down_blocks_1_3_attention_attn_{name}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    assert_like_merged(nets, read(write(tmp_path / "t.safetensors", tensors), nets), layers, 1.0)


def test_text_encoder_keys_apply_to_the_text_encoder_or_are_unmatched(
    nets: Networks, tmp_path: Path
) -> None:
    linear = nets.text_c.model.get_submodule("encoder.layers.0.self_attn.q_proj")
    down, up = halves(linear, 2)
    key = "lora_prior_te_text_model_encoder_layers_0_self_attn_q_proj"
    path = write(
        tmp_path / "te.safetensors", {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    )
    lora, adapters = read(path, nets), Adapters(nets.by_name())
    changes = {"model.encoder.layers.0.self_attn.q_proj": change(down, up, 1.0)}
    with torch.no_grad():
        expected = merged(nets.text_c, changes)(["a red fox"])
        adapters.add("a", lora)
        torch.testing.assert_close(nets.text_c(["a red fox"]), expected, rtol=1e-5, atol=1e-6)
    adapters.remove()
    with pytest.raises(ModelFolderError, match="2 keys of the LoRA match no layer"):
        read_lora(path, stage_c=nets.stage_c, stage_b=nets.stage_b)


@pytest.mark.parametrize("stabilised", [False, True])
def test_alphas_of_a_peft_config_apply(nets: Networks, tmp_path: Path, stabilised: bool) -> None:
    layers = made(nets.stage_c, LAYERS_C)
    tensors = named(
        layers, LAYERS_C, lambda n: f"base_model.model.{n}", ".lora_A.weight", ".lora_B.weight"
    )
    write(tmp_path / "adapter_model.safetensors", tensors)
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 6,
        "alpha_pattern": {"attention.to_q": 1.5, "^projection": 12},
        "use_rslora": stabilised,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = read(tmp_path, nets).layers["stage_c"]
    factor = math.sqrt(RANK) if stabilised else 1.0
    alphas = {name: layer.alpha / factor for name, layer in found.items()}
    expected = dict.fromkeys(LAYERS_C, 6.0)
    expected |= {"blocks.2.attention.to_q": 1.5, "projection": 12.0}
    assert alphas == pytest.approx(expected)


def test_alphas_in_the_metadata_of_diffusers_and_kohya_apply(
    nets: Networks, tmp_path: Path
) -> None:
    layers = made(nets.stage_c, LAYERS_C)
    tensors = named(layers, LAYERS_C, lambda n: f"prior.{n}", ".lora_A.weight", ".lora_B.weight")
    config = {"prior.lora_alpha": 9, "prior.r": RANK, "prior.alpha_pattern": {"out.1": 2}}
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    found = read(write(tmp_path / "d.safetensors", tensors, metadata), nets).layers["stage_c"]
    assert {n: layer.alpha for n, layer in found.items()} == {
        **dict.fromkeys(LAYERS_C, 9.0),
        "head.1": 2.0,
    }
    path = write(tmp_path / "k.safetensors", tensors, {"ss_network_alpha": "0.5"})
    assert {layer.alpha for layer in read(path, nets).layers["stage_c"].values()} == {0.5}


def test_no_two_layers_of_the_published_sizes_share_a_name() -> None:
    with torch.device("meta"):
        stage_c, stage_b = StageC(StageCModel()), StageB(StageBModel())
    targets = all_targets(stage_c, stage_b, None)
    for kind, network in (("stage_c", stage_c), ("stage_b", stage_b)):
        prefixes = [prefix for prefix, promised in PREFIXES.items() if promised in (None, kind)]
        own = {each[0] for each in targets.values() if len(each) == 1 and each[0].network == kind}
        assert {target.name for target in own} == {name for name, _ in layers_of(network)}
        for target in own:
            for alias in aliases(target.published):
                for prefix in prefixes:
                    key = f"{prefix}_{alias}" if prefix else alias
                    assert find(targets, key) == (target,)
                    assert foreign([key]) is None


def test_a_weight_on_the_command_line_follows_the_path(tmp_path: Path) -> None:
    assert parse_lora("dog.safetensors") == (Path("dog.safetensors"), 1.0)
    assert parse_lora("a=b/dog.safetensors=0.8") == (Path("a=b/dog.safetensors"), 0.8)
    real = tmp_path / "x=2"
    real.mkdir()
    assert parse_lora(str(real)) == (real, 1.0)
    for wrong in ("dog.safetensors=much", "=0.5", "dog=nan"):
        with pytest.raises(ConfigError, match="PATH=WEIGHT"):
            parse_lora(wrong)
