"""The layers that a LoRA can change, and all their names in files.

Files use the published names (those of diffusers), with dots or with underscores for dots, or the
names of the authors' code. All are compared with underscores; `tests/lora` proves for the
published sizes that no two layers then share a name.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

from wuerstchen.lora.lora import Network
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.names import NAMES, published_key

Layer = nn.Linear | nn.Conv2d


class Target(NamedTuple):
    """One layer of one network."""

    network: Network
    name: str
    """In our network."""
    published: str
    inputs: int
    """Columns of the weight as a matrix: inputs times the cells of the kernel."""
    outputs: int
    kernel: tuple[int, ...]
    """Kernel size of a convolution; empty for a linear layer."""


Targets = Mapping[str, tuple[Target, ...]]
"""Names with underscores to the layers that they change: one, or q, k and v of a joint one."""

PREFIXES: Mapping[str, Network | None] = {
    "lora_prior_unet": "stage_c",
    "lora_prior_prior": "stage_c",
    "lora_prior_te": "text_c",
    "lora_prior": "stage_c",
    "lora_decoder_unet": "stage_b",
    "lora_decoder": "stage_b",
    "lora_unet": None,
    "lora_te1": "text_c",
    "lora_te": "text_c",
    "base_model_model": None,
    "diffusion_model": None,
    "prior_text_encoder": "text_c",
    "prior_prior": "stage_c",
    "text_encoder": "text_c",
    "clip_g": "text_c",
    "prior": "stage_c",
    "decoder": "stage_b",
    "unet": None,
    "": None,
}
"""Prefixes of layer names, and the network that each implies; None implies none."""


def all_targets(
    stage_c: StageC | None, stage_b: StageB | None, text_c: TextEncoder | None
) -> Targets:
    """Every name of every layer of the given networks."""
    found: dict[str, set[tuple[Target, ...]]] = {}
    for targets in (_of(stage_c, "stage_c"), _of(stage_b, "stage_b"), _of(text_c, "text_c")):
        by_published = {target.published: target for target in targets}
        for target in targets:
            for alias in aliases(target.published):
                found.setdefault(flat(alias), set()).add((target,))
            if target.published.endswith(".to_q"):
                block = target.published.removesuffix(".to_q")
                joint = tuple(by_published[f"{block}.to_{letter}"] for letter in "qkv")
                for alias in (f"{block}.attn.in_proj_weight", f"{block}.attn.in_proj"):
                    found.setdefault(flat(alias), set()).add(joint)
    # A name of two different layers matches none: its keys are reported, not guessed.
    return {alias: next(iter(layers)) for alias, layers in found.items() if len(layers) == 1}


def find(targets: Targets, module: str) -> tuple[Target, ...]:
    """The layers that a file calls `module`; empty for no match or an ambiguous one."""
    name, found = flat(module.replace(".processor.", ".")), set()
    for prefix, network in PREFIXES.items():
        start = f"{prefix}_" if prefix else ""
        hit = targets.get(name.removeprefix(start), ()) if name.startswith(start) else ()
        if hit and network in (None, hit[0].network):
            found.add(hit)
    return found.pop() if len(found) == 1 else ()


def aliases(published: str) -> Iterator[str]:
    """All names of the layer with this published name."""
    yield published
    block, dot, last = published.rpartition(".to_")
    if published.endswith(".attention.to_out.0"):
        block = published.removesuffix(".to_out.0")
        yield from (f"{block}.attn.out_proj", f"{block}.to_out")
    elif dot and last in ("q", "k", "v"):
        # OneTrainer numbers the thirds of the joint weight, or puts `attn` before them.
        yield from (f"{block}.attn.to_{last}", f"{block}.attn.in_proj.{'qkv'.index(last)}")
    elif published.startswith("text_model."):
        yield published.removeprefix("text_model.")


def flat(name: str) -> str:
    return name.replace(".", "_")


def layers_of(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Names and layers that can have a LoRA, also if peft has wrapped them."""
    for name, module in network.named_modules():
        if re.search(r"\.lora_(A|B)\.", name):
            continue
        # peft has no grouped down-projection, so depthwise convolutions are skipped.
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            yield name.removesuffix(".base_layer"), module


def _of(network: nn.Module | None, kind: Network) -> list[Target]:
    layers = layers_of(network) if network is not None else ()
    return [
        Target(kind, name, published_name(name, kind), w[0].numel(), len(w), tuple(w.shape[2:]))
        for name, w in ((name, layer.weight) for name, layer in layers)
    ]


def published_name(name: str, kind: Network) -> str:
    """The published name of our layer."""
    if kind == "text_c":
        # transformers 5 dropped `text_model` from its module names; files still have it.
        return "text_model." + name.removeprefix("model.").removeprefix("text_model.")
    return published_key(f"{name}.weight", NAMES[kind]).removesuffix(".weight")
