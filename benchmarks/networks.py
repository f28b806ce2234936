"""The three networks in our code and in diffusers', with the same random weights.

B rows, C channels, H x W cells, L tokens, D text width.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wuerstchen.config import Section, StageAModel, StageBModel, StageCModel
from wuerstchen.geometry import latent_size, semantics_size
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import LATENT_CHANNELS, StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights import names as tables
from wuerstchen.weights.names import Names, published_config, published_key

STAGES = ("stage_c", "stage_b", "stage_a")
HEADS = ("head", "clf", "out")
"""Name prefixes of the output layer's tensors, ours and the published ones."""


class Sizes(NamedTuple):
    """Configs of the networks."""

    name: str
    stage_a: StageAModel
    stage_b: StageBModel
    stage_c: StageCModel
    tokens: int


PUBLISHED = Sizes("published", StageAModel(), StageBModel(), StageCModel(), 77)
TINY = Sizes(
    "tiny",
    StageAModel(width=16, depth=2, codebook=32),
    StageBModel(
        widths=(8, 16),
        blocks=(1, 2),
        heads=(0, 2),
        semantics=(False, True),
        condition_width=16,
        text_width=32,
        time_width=16,
    ),
    StageCModel(width=16, depth=2, heads=2, text_width=32, time_width=16),
    12,
)


class NetworkCall(NamedTuple):
    """A network with its inputs, ready to run."""

    prepare: Callable[[], object] | None
    """Work done once per image; None: nothing."""
    step: Callable[[], Tensor]
    """Work done at every step; the only call of a decoder."""


def pair(
    part: str, sizes: Sizes, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, nn.Module]:
    """Our network and diffusers' by system. On the CPU in fp32 both share their weights."""
    own, names = _ours(part, sizes), _names(part)
    state = random_state(own, device=device)
    own.load_state_dict(state, assign=True)
    other = _theirs(part, sizes)
    other.load_state_dict({published_key(k, names): v for k, v in state.items()}, assign=True)
    quiet()
    return {
        "ours": own.eval().to(device=device, dtype=dtype),
        "diffusers": other.eval().to(device=device, dtype=dtype),
    }


def quiet() -> None:
    """Silence diffusers' warnings that these classes are deprecated."""
    from diffusers.utils import logging

    logging.set_verbosity_error()


def single(
    system: str, part: str, sizes: Sizes, *, filled: bool = True, device: str = "cpu"
) -> nn.Module:
    """One network on a device, or on the meta device if not filled."""
    network = _ours(part, sizes) if system == "ours" else _theirs(part, sizes)
    return fill(network, device) if filled else network.eval()


def fill(network: nn.Module, device: str | torch.device = "cpu") -> nn.Module:
    """Move a network from the meta device to a device with random weights."""
    network.load_state_dict(random_state(network, device=device), assign=True)
    return network.eval()


def network_call(
    system: str, part: str, network: nn.Module, sizes: Sizes, side: int, rows: int = 1
) -> NetworkCall:
    """Inputs of `rows` rows for an image of `side` pixels; work once per image is done."""
    like = next(network.parameters())
    latent = noise(like, rows, LATENT_CHANNELS, *latent_size(side, side), seed=1)
    if part == "stage_a":
        return _decode_call(network, latent)
    model = sizes.stage_c if part == "stage_c" else sizes.stage_b
    text = noise(like, rows, sizes.tokens, model.text_width, seed=2)
    cells = noise(like, rows, model.semantic_channels, *semantics_size(side, side), seed=3)
    t = torch.full((rows,), 0.5, device=like.device, dtype=like.dtype)
    if part == "stage_c":
        if not isinstance(network, StageC):
            return NetworkCall(None, lambda: network(cells, t, text))
        known_c = network.condition(text)
        return NetworkCall(lambda: network.condition(text), lambda: network(cells, t, known_c))
    if not isinstance(network, StageB):
        return NetworkCall(None, lambda: network(latent, t, cells, text))
    size = latent_size(side, side)
    known_b = network.condition(cells, text, size)
    return NetworkCall(
        lambda: network.condition(cells, text, size), lambda: network(latent, t, known_b)
    )


def _decode_call(network: nn.Module, latent: Tensor) -> NetworkCall:
    if isinstance(network, StageA):
        return NetworkCall(None, lambda: network.decode(latent))
    scale = float(network.config.scale_factor)  # type: ignore[union-attr, arg-type]
    decode: Callable[..., tuple[Tensor]] = network.decode  # type: ignore[assignment]
    # diffusers' pipeline scales before the network and clamps after it
    return NetworkCall(None, lambda: decode(latent * scale, return_dict=False)[0].clamp(0, 1))


def noise(like: Tensor, *shape: int, seed: int) -> Tensor:
    """Normal noise with the device and dtype of `like`; empty on the meta device."""
    if like.device.type == "meta":
        return torch.empty(shape, device="meta", dtype=like.dtype)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(device=like.device, dtype=like.dtype)


def random_state(
    network: nn.Module, seed: int = 0, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """Random values for every tensor, so that no layer is zero or the identity as after __init__.

    Weights have half the standard deviation that preserves the scale of activations. The divisors
    of the output layers stay near 1, where division does not amplify rounding errors.
    """
    rng = torch.Generator(device).manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
            continue
        is_weight = tensor.dim() > 1 and len(tensor) > 1
        std = 0.5 / tensor[0].numel() ** 0.5 if is_weight else 0.1
        value = torch.randn(tensor.shape, generator=rng, device=device).mul_(std)
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            value.abs_().add_(1)
        state[name] = value
    _limit_divisors(state)
    return state


def _limit_divisors(state: dict[str, Tensor]) -> None:
    for head in HEADS:
        if f"{head}.1.weight" in state:
            state[f"{head}.1.weight"].mul_(0.2)
            if "embedding.1.weight" in state:  # Stage B, whose divisor is a sigmoid
                bias = state[f"{head}.1.bias"]
                bias[len(bias) // 2 :].add_(4)


def _names(part: str) -> Names:
    return {"stage_a": tables.STAGE_A, "stage_b": tables.STAGE_B, "stage_c": tables.STAGE_C}[part]


def _ours(part: str, sizes: Sizes) -> nn.Module:
    with torch.device("meta"):
        if part == "stage_a":
            return StageA(sizes.stage_a)
        return StageB(sizes.stage_b) if part == "stage_b" else StageC(sizes.stage_c)


def _theirs(part: str, sizes: Sizes) -> nn.Module:
    from diffusers.pipelines.deprecated.wuerstchen import (
        PaellaVQModel,
        WuerstchenDiffNeXt,
        WuerstchenPrior,
    )

    classes: Mapping[str, type[nn.Module]] = {
        "stage_a": PaellaVQModel,
        "stage_b": WuerstchenDiffNeXt,
        "stage_c": WuerstchenPrior,
    }
    config: Section = getattr(sizes, part)
    values = published_config(config, _names(part))
    known = {key: value for key, value in values.items() if not key.startswith("_")}
    with torch.device("meta"):
        return classes[part](**known)
