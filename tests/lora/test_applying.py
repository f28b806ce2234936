"""LoRAs in use: their sums, live and fused, and that removing them leaves nothing."""

import ast
import sys
import time
from pathlib import Path

import pytest
import torch
from hand_made import (
    Networks,
    answer_b,
    answer_c,
    bits,
    change,
    halves,
    merged,
)
from torch import nn

import wuerstchen.lora
from wuerstchen.config import StageCModel
from wuerstchen.errors import ConfigError
from wuerstchen.lora import Adapters, Lora, LoraLayer, Network
from wuerstchen.lora.layers import layers_of
from wuerstchen.models.stage_c import StageC

NAMES: dict[Network, tuple[str, ...]] = {
    "stage_c": ("blocks.2.attention.to_k", "blocks.0.channelwise.4", "projection", "head.1"),
    "stage_b": ("down_blocks.1.3.attention.to_q", "text_mapper", "embedding.1"),
}


def made_lora(nets: Networks, seed: int, rank: int = 2, alpha: float = 3.0) -> Lora:
    """The same layers for every seed, with other values."""
    layers: dict[Network, dict[str, LoraLayer]] = {}
    for kind, names in NAMES.items():
        network = nets.by_name()[kind]
        layers[kind] = {}
        for index, name in enumerate(names):
            base = network.get_submodule(name).weight
            down, up = halves(network.get_submodule(name), rank, seed=seed + 10 * index)
            layers[kind][name] = LoraLayer(
                down=down.flatten(1), up=up.flatten(1), alpha=alpha, kernel=tuple(base.shape[2:])
            )
    return Lora(source=f"seed {seed}", format="kohya", layers=layers)


def changes(
    loras: list[tuple[Lora, float]], nets: Networks, kind: Network
) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for lora, weight in loras:
        for name, layer in lora.layers[kind].items():
            delta = change(*layer.halves(), weight * layer.alpha / layer.rank)
            total[name] = total[name] + delta if name in total else delta
    return total


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def assert_plain(nets: Networks) -> None:
    for network in nets:
        modules = dict(network.named_modules())
        assert not [n for n, m in modules.items() if type(m).__module__.startswith("peft")]
        assert not hasattr(network, "peft_config")
    for kind, names in NAMES.items():
        for name in names:
            assert type(nets.by_name()[kind].get_submodule(name)) in (nn.Linear, nn.Conv2d)


def test_two_loras_with_weights_are_the_sum_of_their_changes_live_and_fused(nets: Networks) -> None:
    first, second = made_lora(nets, 1), made_lora(nets, 2, rank=4, alpha=2.0)
    loras = [(first, 0.7), (second, -1.3)]
    expected_c = answer_c(merged(nets.stage_c, changes(loras, nets, "stage_c")))
    expected_b = answer_b(merged(nets.stage_b, changes(loras, nets, "stage_b")))
    adapters = Adapters(nets.by_name())
    adapters.add("my.first v1.5", first, 0.7)
    adapters.add("second", second)
    adapters.set(["my.first v1.5", "second"], [0.7, -1.3])
    assert adapters.weights == {"my.first v1.5": 0.7, "second": -1.3}
    assert_close(answer_c(nets.stage_c), expected_c)
    assert_close(answer_b(nets.stage_b), expected_b)
    live = answer_c(nets.stage_c)
    adapters.fuse()
    assert_plain(nets)
    assert_close(answer_c(nets.stage_c), live)
    assert_close(answer_c(nets.stage_c), expected_c)
    assert_close(answer_b(nets.stage_b), expected_b)


def test_unfusing_restores_bits_and_live_loras(nets: Networks) -> None:
    before = bits(nets.stage_c)
    adapters = Adapters(nets.by_name())
    adapters.add("a", made_lora(nets, 1), 0.9)
    live = answer_c(nets.stage_c)
    adapters.fuse()
    assert adapters.fused and bits(nets.stage_c) != before
    adapters.unfuse()
    assert torch.equal(answer_c(nets.stage_c), live)
    weights = {name.replace(".base_layer", ""): value for name, value in bits(nets.stage_c).items()}
    assert {name: weights[name] for name in before} == before


@pytest.mark.parametrize("leave", [Adapters.unfuse, Adapters.remove])
def test_networks_whose_dtype_changed_while_fused_keep_it(nets: Networks, leave) -> None:
    adapters = Adapters(nets.by_name())
    adapters.add("a", made_lora(nets, 1), 0.9)
    adapters.fuse()
    nets.stage_c.to(torch.bfloat16)
    leave(adapters)
    kinds = {p.dtype for name, p in nets.stage_c.named_parameters() if "lora_" not in name}
    assert kinds == {torch.bfloat16}


@pytest.mark.parametrize("fused", [False, True])
def test_removing_leaves_networks_as_if_they_never_had_a_lora(nets: Networks, fused: bool) -> None:
    for parameter in nets.stage_b.parameters():
        parameter.requires_grad_(False)
    before = [bits(network) for network in nets]
    parameters = [list(network.parameters()) for network in nets]
    requires_grad = [[p.requires_grad for p in network.parameters()] for network in nets]
    modules = [list(network.modules()) for network in nets]
    adapters = Adapters(nets.by_name())
    adapters.add("a", made_lora(nets, 1))
    adapters.add("b", made_lora(nets, 2))
    if fused:
        adapters.fuse()
    adapters.remove()
    assert_plain(nets)
    assert [bits(network) for network in nets] == before
    for index, network in enumerate(nets):
        now = list(network.parameters())
        assert all(a is b for a, b in zip(now, parameters[index], strict=True))
        assert [p.requires_grad for p in now] == requires_grad[index]
        assert all(a is b for a, b in zip(network.modules(), modules[index], strict=True))
    assert (adapters.names, adapters.weights, adapters.fused) == ((), {}, False)


def test_removing_one_of_two_leaves_the_other(nets: Networks) -> None:
    other = made_lora(nets, 2)
    expected = answer_c(merged(nets.stage_c, changes([(other, 0.5)], nets, "stage_c")))
    adapters = Adapters(nets.by_name())
    adapters.add("a", made_lora(nets, 1))
    adapters.add("b", other, 0.5)
    adapters.remove("a")
    assert adapters.weights == {"b": 0.5}
    assert_close(answer_c(nets.stage_c), expected)


def test_no_lora_in_use_means_plain_layers(nets: Networks) -> None:
    before = answer_c(nets.stage_c)
    adapters = Adapters(nets.by_name())
    adapters.add("a", made_lora(nets, 1))
    adapters.set([])
    assert_plain(nets)
    assert torch.equal(answer_c(nets.stage_c), before)
    adapters.set("a", 0.0)
    torch.testing.assert_close(answer_c(nets.stage_c), before)


def test_a_bf16_weight_is_rounded_once(nets: Networks) -> None:
    nets.stage_c.bfloat16()
    loras = [(made_lora(nets, 1), 0.3), (made_lora(nets, 2), 0.6)]
    name = "blocks.2.attention.to_k"
    layer = nets.stage_c.get_submodule(name)
    original = layer.weight.detach().clone()
    assert isinstance(original, torch.Tensor)
    exact = original.double() + changes(loras, nets, "stage_c")[name]
    adapters = Adapters(nets.by_name())
    for index, (lora, weight) in enumerate(loras):
        adapters.add(str(index), lora, weight)
    adapters.fuse()
    fused = nets.stage_c.get_submodule(name).weight
    assert isinstance(fused, torch.Tensor) and fused.dtype == torch.bfloat16
    # Half a unit in the last of 8 bits, and a little for the sum in fp32.
    assert ((fused.double() - exact).abs() <= exact.abs() * 2.0**-8 * 1.001).all()
    adapters.remove()
    assert torch.equal(nets.stage_c.get_submodule(name).weight, original)


def test_fusing_needs_the_weights_in_memory(nets: Networks) -> None:
    adapters = Adapters(nets.by_name())
    adapters.add("a", made_lora(nets, 1))
    layer = nets.stage_b.get_submodule("text_mapper").base_layer
    kept = layer.weight
    layer.weight = nn.Parameter(kept.to("meta"))
    with pytest.raises(ConfigError, match=r"stage_b are not in memory.*turn low_memory off"):
        adapters.fuse()
    assert not adapters.fused
    layer.weight = kept
    adapters.fuse()
    assert adapters.fused


def test_live_loras_keep_their_values_while_weights_are_offloaded(nets: Networks) -> None:
    """Weights that are on the meta device between uses return to the same layers."""
    lora, name = made_lora(nets, 1), "text_mapper"
    layer = nets.stage_b.get_submodule(name)
    kept = layer.weight
    expected = answer_b(merged(nets.stage_b, changes([(lora, 1.0)], nets, "stage_b")))
    layer.weight = nn.Parameter(kept.to("meta"))
    Adapters(nets.by_name()).add("a", lora)
    layer.weight = kept
    assert_close(answer_b(nets.stage_b), expected)


def test_invalid_calls_are_one_sentence_and_change_nothing(nets: Networks) -> None:
    adapters = Adapters(nets.by_name())
    lora = made_lora(nets, 1)
    adapters.add("a", lora, 0.5)
    found = answer_c(nets.stage_c)
    with pytest.raises(ConfigError, match="'a' exists already"):
        adapters.add("a", lora)
    with pytest.raises(ConfigError, match="no LoRA 'b'; the LoRAs are: 'a'"):
        adapters.set("b")
    with pytest.raises(ConfigError, match="no LoRA 'b'"):
        adapters.remove("b")
    with pytest.raises(ConfigError, match="one weight each for 1 LoRAs, found 2"):
        adapters.set("a", [1.0, 2.0])
    with pytest.raises(ConfigError, match="named twice"):
        adapters.set(["a", "a"])
    with pytest.raises(ConfigError, match="should be a number, found nan"):
        adapters.set("a", float("nan"))
    adapters.add("big", made_lora(nets, 2, alpha=1e4), 1e38)
    with pytest.raises(ConfigError, match="not finite; lower the LoRAs' weights"):
        adapters.fuse()
    assert not adapters.fused
    adapters.remove("big")
    strange = LoraLayer(down=torch.ones(1, 5), up=torch.ones(7, 1), alpha=1.0)
    with pytest.raises(ConfigError, match="loaded for other networks"):
        adapters.add("c", Lora(source="x", format="peft", layers={"stage_c": {"head.1": strange}}))
    adapters.set("a", 0.5)
    assert adapters.names == ("a",)
    assert torch.equal(answer_c(nets.stage_c), found)
    adapters.fuse()
    for what in (lambda: adapters.add("d", lora), lambda: adapters.set("a")):
        with pytest.raises(ConfigError, match="fused into the weights; unfuse"):
            what()


def test_without_peft_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it raises ImportError
    with pytest.raises(ConfigError, match=r"pip install '\.\[lora\]'"):
        Adapters({}).add("a", Lora(source="x", format="peft", layers={}))


def test_importing_the_package_does_not_import_peft() -> None:
    """Checked by the import statements, since this process has imported peft already."""
    for path in Path(wuerstchen.lora.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not any(name.startswith("peft") for name in [*names, module]), path


def test_exactly_the_layers_of_the_lora_are_wrapped_at_full_size_within_seconds() -> None:
    """Names with equal endings are distinct, and hundreds of layers of several ranks are fast."""
    with torch.device("meta"):
        stage_c = StageC(StageCModel())
    chosen = [
        (name, layer) for name, layer in layers_of(stage_c) if not name.startswith("blocks.2.")
    ]
    layers = {
        name: LoraLayer(
            down=torch.zeros(1 + index % 3, layer.weight[0].numel()),
            up=torch.zeros(len(layer.weight), 1 + index % 3),
            alpha=1.0 + index,
            kernel=tuple(layer.weight.shape[2:]),
        )
        for index, (name, layer) in enumerate(chosen)
    }
    assert len(layers) > 200
    adapters = Adapters({"stage_c": stage_c})
    start = time.perf_counter()
    adapters.add("a", Lora(source="x", format="peft", layers={"stage_c": layers}))
    assert time.perf_counter() - start < 30
    modules = dict(stage_c.named_modules())
    assert {n for n, m in modules.items() if type(m).__module__.startswith("peft")} == set(layers)
