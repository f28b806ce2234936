"""Apply weighted LoRAs to networks: live as peft layers, or fused into the weights.

The weight of a live LoRA can change at any time; each layer costs two small products. A fused LoRA
costs nothing and leaves plain layers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from wuerstchen.errors import ConfigError
from wuerstchen.lora.layers import layers_of
from wuerstchen.lora.lora import Lora, LoraLayer, Network, Place
from wuerstchen.lora.peft_layers import activate, inject, need_peft, unwrap


class Adapters:
    """The LoRAs of a set of networks, which are changed in place and must not be replaced.

    Without a LoRA the networks are as before: the same layers, the same parameters, the same bits.
    """

    def __init__(self, networks: Mapping[Network, nn.Module]) -> None:
        self._networks = dict(networks)
        self._loras: dict[str, Lora] = {}
        self._weights: dict[str, float] = {}
        self._originals: dict[Place, nn.Parameter] = {}
        self._live = False

    @property
    def names(self) -> tuple[str, ...]:
        """All LoRAs in the order in which they were added."""
        return tuple(self._loras)

    @property
    def weights(self) -> dict[str, float]:
        """The LoRAs in use, each with its weight."""
        return dict(self._weights)

    @property
    def fused(self) -> bool:
        """Whether the LoRAs in use are part of the weights."""
        return bool(self._originals)

    def add(self, name: str, lora: Lora, weight: float = 1.0) -> None:
        """Add a LoRA that was read for these networks, and use it with those in use."""
        need_peft()
        self._need_live("add a LoRA")
        if name in self._loras:
            raise ConfigError(
                f"a LoRA {name!r} exists already ({self._loras[name].source}); use another name, "
                "or remove it first."
            )
        self._check_fits(lora)
        weights = _checked_weights((*self._weights, name), (*self._weights.values(), weight))
        self._loras[name] = lora
        try:
            self._use(weights)
        except BaseException:
            del self._loras[name]
            raise

    def set(self, names: str | Sequence[str], weights: float | Sequence[float] = 1.0) -> None:
        """Use exactly these LoRAs; one weight for all, or one each."""
        self._need_live("choose LoRAs")
        names = (names,) if isinstance(names, str) else tuple(names)
        for name in names:
            self._need(name)
        if not isinstance(weights, Sequence):
            weights = (weights,) * len(names)
        self._use(_checked_weights(names, weights))

    def fuse(self) -> None:
        """Make the LoRAs in use part of the weights: W + sum of weight * alpha / rank * B A.

        The sum is taken in fp32 and rounded once to the type of the weight.
        """
        if self.fused:
            return
        deltas: dict[Place, list[tuple[float, LoraLayer]]] = {}
        for name, weight in self._weights.items():
            for place, layer in self._loras[name].items():
                deltas.setdefault(place, []).append((weight, layer))
        modules = self._layers()
        for place in deltas:
            if modules[place].weight.is_meta:
                raise ConfigError(
                    f"the weights of {place[0]} are not in memory, so a LoRA cannot be fused into "
                    "them; turn low_memory off first, or use the LoRA without fusing it."
                )
        # All sums first: if memory runs out, nothing has changed yet.
        fused = {place: _fused(modules[place].weight, changes) for place, changes in deltas.items()}
        self._unwrap()
        for place, values in fused.items():
            original = modules[place].weight
            assert isinstance(original, nn.Parameter)
            self._originals[place] = original
            modules[place].weight = nn.Parameter(values, requires_grad=original.requires_grad)

    def unfuse(self) -> None:
        """Restore the original weights, bit for bit, and the LoRAs as live layers."""
        if self.fused:
            self._restore()
            self._use(self._weights)

    def remove(self, name: str | None = None) -> None:
        """Remove one LoRA, or all of them; fused ones are unfused first."""
        if name is not None:
            self._need(name)
        self._restore()
        for each in (name,) if name is not None else self.names:
            del self._loras[each]
            self._weights.pop(each, None)
        self._use(self._weights)

    def _use(self, weights: Mapping[str, float]) -> None:
        """Wrap exactly the layers that LoRAs in use change."""
        self._unwrap()
        self._weights = {}
        if not weights:
            return
        # peft freezes everything it wraps; which parameters are trained must not change.
        requires_grad = {
            parameter: parameter.requires_grad
            for network in self._networks.values()
            for parameter in network.parameters()
        }
        self._live = True
        try:
            for index, (name, weight) in enumerate(weights.items()):
                # Users' names may contain dots, module names may not.
                inject(self._networks, f"lora{index}", self._loras[name], weight)
            activate(self._networks.values(), len(weights))
            self._weights = dict(weights)
        except BaseException:
            self._unwrap()
            raise
        finally:
            for parameter, needed in requires_grad.items():
                parameter.requires_grad_(needed)

    def _unwrap(self) -> None:
        """Put the plain layers back into their places."""
        if self._live:
            for network in self._networks.values():
                unwrap(network)
        self._live = False

    def _restore(self) -> None:
        modules = self._layers()
        for place, original in self._originals.items():
            now = modules[place].weight
            if (original.device, original.dtype) != (now.device, now.dtype):  # the network moved
                original = nn.Parameter(original.to(now), requires_grad=original.requires_grad)
            modules[place].weight = original
        self._originals.clear()

    def _layers(self) -> dict[Place, nn.Linear | nn.Conv2d]:
        return {
            (kind, name): layer
            for kind, network in self._networks.items()
            for name, layer in layers_of(network)
        }

    def _check_fits(self, lora: Lora) -> None:
        modules = self._layers()
        for (network, name), layer in lora.items():
            module = modules.get((network, name))
            found = (len(layer.up), layer.down.shape[1])
            if module is None or found != (len(module.weight), module.weight[0].numel()):
                raise ConfigError(
                    f"{lora.source}: was loaded for other networks: {name} of {network} does not "
                    "fit; load it for the networks that it changes."
                )

    def _need(self, name: str) -> None:
        if name not in self._loras:
            known = ", ".join(map(repr, self._loras)) or "none"
            raise ConfigError(f"there is no LoRA {name!r}; the LoRAs are: {known}.")

    def _need_live(self, what: str) -> None:
        if self.fused:
            raise ConfigError(f"LoRAs are fused into the weights; unfuse them to {what}.")


def _checked_weights(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    if len(names) != len(weights):
        raise ConfigError(f"expected one weight each for {len(names)} LoRAs, found {len(weights)}.")
    if len(set(names)) != len(names):
        raise ConfigError(f"a LoRA is named twice: {', '.join(names)}; name each once.")
    for name, weight in zip(names, weights, strict=True):
        if not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(f"the weight of LoRA {name!r} should be a number, found {weight!r}.")
    return dict(zip(names, weights, strict=True))


@torch.no_grad()
def _fused(weight: Tensor, changes: Iterable[tuple[float, LoraLayer]]) -> Tensor:
    total = weight.float()
    for factor, layer in changes:
        total = total + factor * layer.delta().to(weight.device).view(weight.shape)
    rounded = total.to(weight.dtype)
    if not rounded.isfinite().all():
        raise ConfigError("fusing gives weights that are not finite; lower the LoRAs' weights.")
    return rounded
