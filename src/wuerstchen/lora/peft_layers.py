"""peft layers around ours: wrap layers, train them, read them out and unwrap them."""

import copy
import importlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn

from wuerstchen.config import LoraConfig
from wuerstchen.errors import ConfigError, how_to_install
from wuerstchen.lora.layers import layers_of
from wuerstchen.lora.lora import Lora, LoraLayer, Network

ADAPTER = "trained"
N = TypeVar("N", bound=nn.Module)


def need_peft() -> None:
    """Raise ConfigError if peft is not installed."""
    try:
        importlib.import_module("peft")
    except ImportError:
        raise ConfigError(
            f"LoRAs need the package peft, which is not installed; {how_to_install('lora')}."
        ) from None


def add_lora(network: nn.Module, config: LoraConfig) -> None:
    """Freeze `network` and wrap the layers that the config selects in low-rank ones, in place.

    The up-projections start at zero, so nothing changes yet. Raises ConfigError without peft.
    """
    need_peft()
    from peft import LoraConfig, inject_adapter_in_model

    names = [
        name
        for name, _ in layers_of(network)
        if config.layers == "all" or ".attention." in name or ".self_attn." in name
    ]
    alpha = config.rank if config.alpha is None else config.alpha
    settings = LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=names)
    holder = nn.Module()  # peft sets attributes on its argument
    holder.network = network.requires_grad_(False)
    inject_adapter_in_model(settings, holder, ADAPTER)


def trained_lora(networks: Mapping[Network, nn.Module], source: str) -> Lora:
    """The trained low-rank layers of these networks."""
    layers = {kind: found for kind, network in networks.items() if (found := _layers(network))}
    return Lora(source=source, format="peft", layers=layers)


@torch.no_grad()
def fused_copy(network: N) -> N:
    """A copy of `network` with plain layers whose weights include the LoRA."""
    changes = _layers(network)
    plain = copy.deepcopy(network)
    unwrap(plain)
    modules = dict(layers_of(plain))
    for name, layer in changes.items():
        weight = modules[name].weight
        weight.add_(layer.delta().to(weight).view(weight.shape))
    return plain


def inject(networks: Mapping[Network, nn.Module], adapter: str, lora: Lora, weight: float) -> None:
    """Wrap the layers that `lora` changes in peft layers of the given adapter."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer as Wrapper

    changes = {f"{network}.{name}": layer for (network, name), layer in lora.items()}
    # Rank by rank: peft tries a pattern per layer on every layer, which takes minutes at full size.
    for rank in sorted({layer.rank for layer in changes.values()}):
        names = [name for name, layer in changes.items() if layer.rank == rank]
        # peft sets attributes on its argument and reads its `config`: keep it off our networks.
        holder = nn.ModuleDict({str(kind): network for kind, network in networks.items()})
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
        # With keys, peft wraps exactly these layers; the config alone matches name endings.
        keys = {f"{name}.lora_A.weight": changes[name].down for name in names}
        inject_adapter_in_model(config, holder, adapter, low_cpu_mem_usage=True, state_dict=keys)
    for (network, name), layer in lora.items():
        wrapper = networks[network].get_submodule(name)
        assert isinstance(wrapper, Wrapper)
        weight_of_base = wrapper.get_base_layer().weight
        # If the weights are offloaded, the small matrices stay in memory.
        device = "cpu" if weight_of_base.is_meta else weight_of_base.device
        for half, value in zip((wrapper.lora_A, wrapper.lora_B), layer.halves(), strict=True):
            half[adapter].weight = nn.Parameter(value.to(device, copy=True), requires_grad=False)
        wrapper.set_scale(adapter, weight * layer.scale)  # peft has an alpha / rank of 1


def activate(networks: Iterable[nn.Module], count: int) -> None:
    """Use all adapters at once, frozen and in the mode of the layer that they wrap."""
    from peft.tuners.lora import LoraLayer as Wrapper

    for module in [module for network in networks for module in network.modules()]:
        if isinstance(module, Wrapper):
            module.set_adapter([f"lora{index}" for index in range(count)])
            module.train(module.get_base_layer().training)
            module.requires_grad_(False)


def unwrap(network: nn.Module) -> None:
    """Replace wrapped layers by their plain layers, unchanged."""
    from peft.tuners.lora import LoraLayer as Wrapper

    for parent in list(network.modules()):
        if isinstance(parent, Wrapper):
            continue
        for name, child in list(parent.named_children()):
            if isinstance(child, Wrapper):
                setattr(parent, name, child.get_base_layer())


def _layers(network: nn.Module) -> dict[str, LoraLayer]:
    from peft.tuners.lora import LoraLayer as Wrapper

    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Wrapper):
            halves = [half[ADAPTER].weight.detach() for half in (module.lora_A, module.lora_B)]
            down, up = (half.float().cpu().flatten(1) for half in halves)  # or convolutions
            alpha = float(module.scaling[ADAPTER]) * len(down)
            kernel = tuple(module.get_base_layer().weight.shape[2:])
            found[name] = LoraLayer(down=down, up=up, alpha=alpha, kernel=kernel)
    return found
