"""LoRAs that do not fit and files that are none: one sentence each, no network changes."""

from pathlib import Path

import pytest
import torch
from hand_made import Networks, bits, halves, write
from torch import Tensor

from wuerstchen.errors import ModelFolderError
from wuerstchen.lora import Adapters, Lora, read_lora
from wuerstchen.lora.keys import is_bounded

LAYER = "blocks.2.attention.to_q"
ALPHA = f"{LAYER}.alpha"


def read(path: Path, nets: Networks, allow_unmatched: bool = False) -> Lora:
    return read_lora(
        path,
        stage_c=nets.stage_c,
        stage_b=nets.stage_b,
        text_c=nets.text_c,
        allow_unmatched=allow_unmatched,
    )


def pair(key: str, inputs: int, outputs: int, rank: int = 2) -> dict[str, Tensor]:
    return {
        f"{key}.lora_down.weight": torch.ones(rank, inputs),
        f"{key}.lora_up.weight": torch.ones(outputs, rank),
    }


def good(nets: Networks) -> dict[str, Tensor]:
    down, up = halves(nets.stage_c.get_submodule(LAYER), 2)
    return {f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}


def test_unmatched_keys_are_listed_and_never_dropped_silently(
    nets: Networks, tmp_path: Path
) -> None:
    tensors = good(nets)
    for number in range(4):
        tensors |= pair(f"blocks.{90 + number}.attention.to_q", 16, 16)
    tensors["emb_params"] = torch.ones(1)
    path = write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(ModelFolderError) as caught:
        read(path, nets)
    message = str(caught.value)
    assert "9 keys" in message and "..." in message and "emb_params" in message
    assert "blocks.90.attention.to_q.lora_down.weight" in message
    with pytest.warns(UserWarning, match="9 keys of the LoRA match no layer and are ignored: emb"):
        lora = read(path, nets, allow_unmatched=True)
    assert len(lora.unmatched) == 9
    assert list(lora.layers["stage_c"]) == [LAYER]
    Adapters(nets.by_name()).add("a", lora)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "Stable Diffusion or SDXL"),
        ("lora_unet_input_blocks_4_1_proj_in", "Stable Diffusion or SDXL"),
        ("unet.mid_block.attentions.0.proj_out", "Stable Diffusion or SDXL"),
        ("lora_prior_unet_down_blocks_0_2_attention_to_q", r"Stable Cascade \(v3\)"),
        ("diffusion_model.down_blocks.0.1.mapper_crp", r"Stable Cascade \(v3\)"),
        ("transformer.single_transformer_blocks.3.attn.to_q", "SD 3 or Flux"),
    ],
)
@pytest.mark.parametrize("allow_unmatched", [False, True])
def test_a_lora_for_another_system_is_named(
    nets: Networks, tmp_path: Path, key: str, what: str, allow_unmatched: bool
) -> None:
    path = write(tmp_path / "x.safetensors", {**good(nets), **pair(key, 8, 8)})
    with pytest.raises(ModelFolderError, match=rf"expected .*v2, found one for .*{what} \({key}"):
        read(path, nets, allow_unmatched)


def test_a_lora_of_another_width_is_refused_with_both_widths(
    nets: Networks, tmp_path: Path
) -> None:
    before = bits(nets.stage_c)
    path = write(
        tmp_path / "x.safetensors", {**good(nets), **pair("blocks.5.kv_mapper.1", 2048, 2048)}
    )
    with pytest.raises(
        ModelFolderError,
        match="another model: blocks.5.kv_mapper.1 has 16 inputs and 16 outputs here, but "
        r"2048 inputs and 2048 outputs in the file \(2048 is the width of Stable Cascade, v3\)",
    ):
        read(path, nets)
    assert bits(nets.stage_c) == before


def test_a_file_without_a_fitting_key_is_always_refused(nets: Networks, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", pair("blocks.77.attention.to_q", 16, 16))
    with pytest.raises(ModelFolderError, match=r"match no layer .*another model, or for a network"):
        read(path, nets, allow_unmatched=True)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (f"{LAYER}.dora_scale", "DoRA"),
        (f"{LAYER}.lora_magnitude_vector.weight", "DoRA"),
        (f"{LAYER}.hada_w1_a", "LoHa"),
        (f"{LAYER}.lokr_w1", "LoKr"),
        (f"{LAYER}.lora_mid.weight", "third matrix"),
        (f"{LAYER}.lora_B.bias", "biases"),
        ("weights.0.lora_down", "numbers layers without names"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(
    nets: Networks, tmp_path: Path, key: str, what: str
) -> None:
    path = write(tmp_path / "x.safetensors", {**good(nets), key: torch.ones(16)})
    with pytest.raises(ModelFolderError, match=f"expected a plain LoRA, found .*{what}"):
        read(path, nets, allow_unmatched=True)


def test_damage_is_one_sentence(nets: Networks, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", good(nets))
    whole = path.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFolderError, match="damaged or cut off"):
            read(path, nets)
    path.write_bytes(b"not a file of tensors" * 9)
    with pytest.raises(ModelFolderError, match="damaged or cut off"):
        read(path, nets)


def test_halves_that_do_not_belong_together_are_refused(nets: Networks, tmp_path: Path) -> None:
    down_key, up_key = good(nets)
    cases = [
        ({down_key: good(nets)[down_key]}, "lacks its lora_up half"),
        ({up_key: good(nets)[up_key]}, "lacks its lora_down half"),
        ({**good(nets), up_key: torch.ones(16, 3)}, "do not share a rank"),
        ({**good(nets), down_key: torch.ones(16)}, "do not share a rank"),
        ({**good(nets), up_key: torch.ones(0, 2)}, "do not share a rank"),
        ({**good(nets), up_key: torch.ones(0, 0)}, "do not share a rank"),
        (
            {**good(nets), up_key: torch.ones(16, 2).to(torch.int8)},
            "expected floating-point .*int8",
        ),
        ({**good(nets), down_key: torch.full((2, 16), torch.nan)}, "not finite"),
        ({**good(nets), f"{LAYER}.alpha": torch.tensor(torch.inf)}, "not finite"),
        ({**good(nets), f"{LAYER}.alpha": torch.ones(3)}, "expected one number"),
        ({**good(nets), **pair(f"prior.{LAYER}", 16, 16)}, "changes .* twice"),
        (
            {**good(nets), f"{LAYER}.lora_A.second.weight": torch.ones(2, 16)},
            "contains more than one LoRA",
        ),
        ({"blocks.0.depthwise.weight": torch.ones(3)}, "expected a LoRA with keys such as"),
        ({f"{LAYER}.alpha": torch.tensor(1.0)}, "expected a LoRA with keys such as"),
    ]
    for tensors, message in cases:
        with pytest.raises(ModelFolderError, match=message):
            read(write(tmp_path / "x.safetensors", tensors), nets)


def test_eight_bit_floats_and_integer_alphas_are_read(nets: Networks, tmp_path: Path) -> None:
    plain = read(
        write(tmp_path / "plain.safetensors", {**good(nets), ALPHA: torch.tensor(4.0)}), nets
    )
    small = {key: value.to(torch.float8_e4m3fn) for key, value in good(nets).items()}
    found = read(write(tmp_path / "x.safetensors", {**small, ALPHA: torch.tensor(4)}), nets)
    (layer,), (expected,) = (list(each.layers["stage_c"].values()) for each in (found, plain))
    assert layer.alpha == expected.alpha == 4
    torch.testing.assert_close(layer.down, expected.down.to(torch.float8_e4m3fn).float())


def test_depthwise_convolutions_are_named(nets: Networks, tmp_path: Path) -> None:
    tensors = {**good(nets), **pair("blocks.0.depthwise", 9, 16)}
    with pytest.raises(ModelFolderError, match="depthwise convolutions support no LoRA"):
        read(write(tmp_path / "x.safetensors", tensors), nets)


def test_paths_without_a_lora_are_explained(nets: Networks, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"found no such files"):
        read(tmp_path, nets)
    with pytest.raises(ModelFolderError, match="does not exist"):
        read(tmp_path / "none.safetensors", nets)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelFolderError, match="can run code"):
        read(tmp_path / "adapter_model.bin", nets)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    write(tmp_path / "adapter_model.safetensors", good(nets))
    with pytest.raises(ModelFolderError, match="expected the peft_type LORA, found LOHA"):
        read(tmp_path, nets)
    for text, message in (
        ('{"use_dora": true}', "use_dora in its config: DoRA cannot be opened"),
        ('{"lora_alpha": "much"}', "expected a number for the alpha"),
        ('{"alpha_pattern": {"(": 2}}', "which is not a pattern"),
        ('{"alpha_pattern": {"a{9999999999999}": 2}}', "which is not a pattern"),
        ('{"alpha_pattern": {"(.*)*!": 2}}', "is too complex to match"),
        ('{"rank_pattern": {".*.*.*.*.*.*!": 2}}', "is too complex to match"),
        (f'{{"alpha_pattern": {{"{"(.|.)" * 40}!": 2}}}}', "is too complex to match"),
        (f'{{"alpha_pattern": {{"{".?" * 40}!": 2}}}}', "is too complex to match"),
        ("{", "cannot be read as JSON"),
    ):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(ModelFolderError, match=message):
            read(tmp_path, nets)
    path = write(tmp_path / "m.safetensors", good(nets), {"lora_adapter_metadata": "[1]"})
    with pytest.raises(ModelFolderError, match="expected a JSON object"):
        read(path, nets)


@pytest.mark.parametrize(
    "pattern", ["to_q", r"^blocks\.2\.attention\.(to_q|to_k)", r".*\.\d+\..*?q", "(a|b|to_q)$"]
)
def test_patterns_in_use_are_compared(pattern: str) -> None:
    assert is_bounded(pattern)
