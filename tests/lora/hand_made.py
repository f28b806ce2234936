"""LoRA files built by hand, and the arithmetic that they stand for."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from small_networks import B, C, keep_from_one, noise, randomised, small_text
from torch import Tensor, nn

from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder


class Networks(NamedTuple):
    stage_c: StageC
    stage_b: StageB
    text_c: TextEncoder

    def copy(self) -> "Networks":
        return copy.deepcopy(self)

    def by_name(self) -> dict[str, nn.Module]:
        return self._asdict()


def networks() -> Networks:
    stage_c = randomised(StageC(C))
    keep_from_one(stage_c.head)
    return Networks(stage_c, randomised(StageB(B)), small_text())


def answer_c(network: StageC) -> Tensor:
    with torch.no_grad():
        text = network.condition(noise(1, 5, 32, seed=3))
        answer: Tensor = network(noise(1, 16, 4, 4), torch.tensor([0.5]), text)
    return answer


def answer_b(network: StageB) -> Tensor:
    with torch.no_grad():
        semantics, text = noise(1, 16, 3, 3, seed=4), noise(1, 5, 32, seed=3)
        condition = network.condition(semantics, text, (16, 16))
        answer: Tensor = network(noise(1, 4, 16, 16), torch.tensor([0.5]), condition)
    return answer


def halves(layer: nn.Module, rank: int, seed: int = 0, joint: int = 1) -> tuple[Tensor, Tensor]:
    """Down and up for a layer, in its own shapes; `joint` outputs stacked."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    tail = weight.shape[2:]
    down = noise(rank, *weight.shape[1:], seed=seed) * 0.15
    up = noise(joint * len(weight), rank, *(1 for _ in tail), seed=seed + 1) * 0.15
    return down, up


def change(down: Tensor, up: Tensor, scale: float) -> Tensor:
    """scale * B A in the shape of a weight, in double precision."""
    product = up.double().flatten(1) @ down.double().flatten(1)
    return scale * product.view(len(up), *down.shape[1:])


def merged(network: nn.Module, changes: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `network` whose weights include the changes."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, delta in changes.items():
            weight = network.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.copy_(weight.double() + delta)
    return network


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path, dict(metadata or {}))
    return path


def bits(network: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
