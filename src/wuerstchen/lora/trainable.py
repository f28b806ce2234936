"""LoRAs that learn: put around layers of a network, read out of it, and added to its weights."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from wuerstchen.config import LoraConfig
from wuerstchen.lora.apply import need_peft, unwrap
from wuerstchen.lora.layers import layers_of
from wuerstchen.lora.lora import Lora, LoraLayer, Network

ADAPTER = "trained"
N = TypeVar("N", bound=nn.Module)


def add_lora(network: nn.Module, config: LoraConfig) -> None:
    """Freeze `network` and put low-rank layers around those that the config names, in place.

    They begin as no change: the half behind is zero. Raises ConfigError where peft is missing.
    """
    need_peft()
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, _ in layers_of(network) if config.layers == "all" or _attends(name)]
    alpha = config.rank if config.alpha is None else config.alpha
    settings = LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=names)
    holder = nn.Module()  # peft writes on what it is given
    holder.network = network.requires_grad_(False)
    inject_adapter_in_model(settings, holder, ADAPTER)


def trained_lora(networks: Mapping[Network, nn.Module], source: str) -> Lora:
    """What the low-rank layers of these networks have learned."""
    layers = {kind: found for kind, network in networks.items() if (found := _layers(network))}
    return Lora(source=source, format="peft", layers=layers)


@torch.no_grad()
def fused_copy(network: N) -> N:
    """A copy of `network` with plain layers, to whose weights the LoRA was added."""
    changes = _layers(network)
    plain = copy.deepcopy(network)
    unwrap(plain)
    modules = dict(layers_of(plain))
    for name, layer in changes.items():
        weight = modules[name].weight
        weight.add_(layer.delta().to(weight).view(weight.shape))
    return plain


def _attends(name: str) -> bool:
    """Whether a layer belongs to an attention, of ours or of CLIP's."""
    return ".attention." in name or ".self_attn." in name


def _layers(network: nn.Module) -> dict[str, LoraLayer]:
    from peft.tuners.lora import LoraLayer as Wrapper

    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Wrapper):
            down, up = (_half(half[ADAPTER].weight) for half in (module.lora_A, module.lora_B))
            base = module.get_base_layer().weight
            rank = len(down)
            alpha = float(module.scaling[ADAPTER]) * rank
            found[name] = LoraLayer(down=down, up=up, alpha=alpha, kernel=tuple(base.shape[2:]))
    return found


def _half(weight: Tensor) -> Tensor:
    """One of the two matrices, which are convolutions around convolutions."""
    return weight.detach().float().cpu().flatten(1)
