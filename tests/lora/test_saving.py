"""Saved LoRAs are opened by us and by the tools themselves, with the same effect."""

from pathlib import Path

import pytest
import torch
from hand_made import Networks, answer_c, halves
from small_networks import C, noise

from wuerstchen import weights
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.lora import Adapters, Lora, LoraLayer, Network, Style, read_lora, save_lora
from wuerstchen.models.stage_c import StageC

NAMES: dict[Network, dict[str, tuple[int, float]]] = {
    "stage_c": {
        "blocks.2.attention.to_q": (2, 3.0),
        "text_mapper.2": (3, 3.0),
        "projection": (2, 1.0),
    },
    "stage_b": {"head.1": (2, 0.5), "up_blocks.0.2.attention.to_out.0": (1, 1.0)},
    "text_c": {"model.encoder.layers.0.mlp.fc1": (2, 2.0)},
}


def made_lora(nets: Networks, *kinds: Network) -> Lora:
    layers: dict[Network, dict[str, LoraLayer]] = {}
    for kind in kinds:
        layers[kind] = {}
        for name, (rank, alpha) in NAMES[kind].items():
            module = nets.by_name()[kind].get_submodule(name)
            down, up = halves(module, rank, seed=rank)
            kernel = tuple(module.weight.shape[2:])
            layers[kind][name] = LoraLayer(
                down=down.flatten(1), up=up.flatten(1), alpha=alpha, kernel=kernel
            )
    return Lora(source="made", format="kohya", layers=layers)


def read(path: Path, nets: Networks) -> Lora:
    return read_lora(path, stage_c=nets.stage_c, stage_b=nets.stage_b, text_c=nets.text_c)


def assert_same(found: Lora, expected: Lora) -> None:
    assert found.layers.keys() == expected.layers.keys()
    for kind, layers in expected.layers.items():
        assert set(found.layers[kind]) == set(layers)
        for name, layer in layers.items():
            again = found.layers[kind][name]
            assert torch.equal(again.down, layer.down) and torch.equal(again.up, layer.up)
            assert (again.alpha, again.kernel) == (layer.alpha, layer.kernel)


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_one_file_keeps_the_changes_of_all_networks(
    nets: Networks, tmp_path: Path, style: Style
) -> None:
    lora = made_lora(nets, "stage_c", "stage_b", "text_c")
    save_lora(tmp_path / "new" / "x.safetensors", lora, style=style)
    found = read(tmp_path / "new" / "x.safetensors", nets)
    assert found.format == style
    assert_same(found, lora)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("kind", ["stage_c", "stage_b", "text_c"])
def test_a_peft_folder_keeps_the_changes_of_one_network(
    nets: Networks, tmp_path: Path, kind: Network
) -> None:
    lora = made_lora(nets, kind)
    save_lora(tmp_path / "x", lora, style="peft")
    assert_same(read(tmp_path / "x", nets), lora)
    assert read(tmp_path / "x", nets).format == "peft"


def test_a_joint_projection_can_be_saved_in_thirds(nets: Networks, tmp_path: Path) -> None:
    shared = noise(2, 16)
    layers = {
        f"blocks.2.attention.to_{x}": LoraLayer(down=shared, up=noise(16, 2, seed=i), alpha=1.0)
        for i, x in enumerate("qkv")
    }
    lora = Lora(source="made", format="original", layers={"stage_c": layers})
    for style in ("diffusers", "kohya"):
        save_lora(tmp_path / "x.safetensors", lora, style=style)
        assert_same(read(tmp_path / "x.safetensors", nets), lora)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_peft_itself_opens_our_folder_on_the_network_of_diffusers(
    nets: Networks, tmp_path: Path
) -> None:
    from peft import PeftModel

    theirs = diffusers_prior(nets.stage_c, tmp_path)
    lora = made_lora(nets, "stage_c")
    save_lora(tmp_path / "lora", lora, style="peft")
    wrapped = PeftModel.from_pretrained(theirs, tmp_path / "lora").eval()
    assert_prior_agrees(wrapped, nets, lora)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_diffusers_itself_opens_our_file(nets: Networks, tmp_path: Path) -> None:
    theirs = diffusers_prior(nets.stage_c, tmp_path)
    lora = made_lora(nets, "stage_c")
    save_lora(tmp_path / "x.safetensors", lora, style="diffusers")
    theirs.load_lora_adapter(tmp_path, prefix="prior", weight_name="x.safetensors")
    assert_prior_agrees(theirs, nets, lora)


def diffusers_prior(stage_c: StageC, folder: Path) -> torch.nn.Module:
    """The same prior as a network of diffusers, by way of our model folder."""
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    weights.stage_c.save(folder / "model", stage_c)
    network: torch.nn.Module = WuerstchenPrior.from_pretrained(folder / "model" / "prior_prior")
    return network.eval()


def assert_prior_agrees(theirs: torch.nn.Module, nets: Networks, lora: Lora) -> None:
    before = answer_c(nets.stage_c)
    Adapters(nets.by_name()).add("a", lora)
    found = answer_c(nets.stage_c)
    with torch.no_grad():
        expected = theirs(
            noise(1, 16, 4, 4), torch.tensor([0.5]), noise(1, 5, C.text_width, seed=3)
        )
    assert (found - before).norm() > 1e-3 * before.norm()
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_a_lora_that_cannot_be_saved_is_explained(nets: Networks, tmp_path: Path) -> None:
    lora = made_lora(nets, "stage_c", "stage_b")
    with pytest.raises(ConfigError, match="one network, but made changes stage_c, stage_b"):
        save_lora(tmp_path / "x", lora, style="peft")
    with pytest.raises(ConfigError, match=r"ending in \.safetensors"):
        save_lora(tmp_path / "x.bin", lora, style="kohya")
    with pytest.raises(ConfigError, match="expected a style of peft, diffusers, kohya"):
        save_lora(tmp_path / "x", lora, style="lycoris")  # type: ignore[arg-type]
    huge = LoraLayer(down=torch.full((1, 16), 1e6), up=torch.ones(16, 1), alpha=1.0)
    lora = Lora(source="x", format="peft", layers={"stage_c": {"blocks.2.attention.to_q": huge}})
    with pytest.raises(SaveError, match=r"not finite as torch.float16"):
        save_lora(tmp_path / "x.safetensors", lora, style="kohya", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []
