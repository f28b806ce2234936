"""Opening a LoRA of any tool: its kind is seen by the keys, and it fits or nothing happens."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wuerstchen.errors import ModelFolderError
from wuerstchen.lora.alphas import Alphas, metadata_config
from wuerstchen.lora.keys import Half, default_alpha, foreign, format_of, parse, refused
from wuerstchen.lora.layers import Target, Targets, all_targets, find
from wuerstchen.lora.lora import Lora, LoraLayer, Network
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.files import read_json

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"

Parts = dict[str, dict[Half, tuple[str, Tensor]]]
"""Per module, by the file's name: its halves, each with its key."""


def read_lora(
    path: Path,
    *,
    stage_c: StageC | None,
    stage_b: StageB | None,
    text_c: TextEncoder | None = None,
    allow_unmatched: bool = False,
) -> Lora:
    """Read a LoRA and fit it to the networks, none of which is changed.

    path             a safetensors file, or a folder of peft or diffusers
    allow_unmatched  warn of keys that belong to no layer of these networks, instead of refusing

    Raises ModelFolderError for a file that is damaged, no LoRA, or a LoRA for another model.
    """
    file, beside = _find_file(path)
    tensors, metadata = _read(file)
    if what := refused(tensors):
        raise ModelFolderError(
            f"{file}: expected a plain LoRA, found {what}; merge it into the weights with the "
            "tool that made it and open the result as a model."
        )
    if stranger := foreign(tensors):
        what, key = stranger
        raise ModelFolderError(
            f"{file}: expected a LoRA for Würstchen v2, found one for {what} ({key})."
        )
    config = read_json(beside) if beside is not None else metadata_config(file, metadata)
    if config.get("peft_type", "LORA") != "LORA":
        raise ModelFolderError(f"{beside}: expected a LORA, found a {config['peft_type']}.")
    alphas = Alphas(beside or file, config, metadata.get("ss_network_alpha"))
    parts, unmatched = _sort(file, tensors)
    layers = _fit(file, parts, all_targets(stage_c, stage_b, text_c), alphas, unmatched)
    _check_unmatched(file, unmatched, layers, allow_unmatched)
    return Lora(
        source=str(path),
        format=format_of(tensors, metadata),
        layers=layers,
        unmatched=tuple(unmatched),
    )


def _find_file(path: Path) -> tuple[Path, Path | None]:
    """The file of weights and, for a folder of peft, its config."""
    if path.is_dir():
        if (path / PEFT_CONFIG).exists():
            path = path / PEFT_WEIGHTS
        elif (path / DIFFUSERS_WEIGHTS).exists():
            path = path / DIFFUSERS_WEIGHTS
        else:
            found = sorted(path.glob("*.safetensors"))
            if len(found) != 1:
                raise ModelFolderError(
                    f"{path}: expected a folder with {PEFT_CONFIG} or one .safetensors file, found "
                    f"{len(found) or 'no'} such files; name the file of the LoRA."
                )
            path = found[0]
    if not path.is_file():
        raise ModelFolderError(f"{path}: expected the file of a LoRA, but it does not exist.")
    if path.suffix != ".safetensors":
        raise ModelFolderError(
            f"{path}: expected a LoRA as .safetensors; other files can run code when they are "
            "opened, so convert it with the tool that made it."
        )
    config = path.with_name(PEFT_CONFIG)
    return path, config if path.name == PEFT_WEIGHTS and config.exists() else None


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            keys = opened.keys()
            return {key: opened.get_tensor(key) for key in keys}, opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(
            f"{file} is damaged or cut off and cannot be read as safetensors ({error}); copy it "
            "again."
        ) from None


def _sort(file: Path, tensors: Mapping[str, Tensor]) -> tuple[Parts, list[str]]:
    """Bring the halves of each module together; second, the keys that are none of a LoRA."""
    parts: Parts = {}
    others = []
    for key, tensor in tensors.items():
        said = parse(key)
        if said is None:
            others.append(key)
            continue
        halves = parts.setdefault(said.module, {})
        if said.half in halves:
            raise ModelFolderError(
                f"{file}: holds more than one LoRA, {halves[said.half][0]} and {key}; "
                "save them as files of their own."
            )
        halves[said.half] = (key, tensor)
    if not any("down" in halves or "up" in halves for halves in parts.values()):
        example = next(iter(tensors), "nothing")
        raise ModelFolderError(
            f"{file}: expected a LoRA with keys such as ….lora_A.weight or ….lora_down.weight, "
            f"found {example}."
        )
    for halves in parts.values():
        missing = [half for half in ("down", "up") if half not in halves]
        if len(missing) == 1:
            key = next(key for key, _ in halves.values())
            raise ModelFolderError(
                f"{file}: {key} lacks its lora_{missing[0]} half; the file is incomplete, get it "
                "again."
            )
    return parts, others


def _fit(
    file: Path, parts: Parts, targets: Targets, alphas: Alphas, unmatched: list[str]
) -> dict[Network, dict[str, LoraLayer]]:
    """The layers of the file under our names; keys that fit nowhere go to `unmatched`."""
    layers: dict[Network, dict[str, LoraLayer]] = {}
    for module, halves in parts.items():
        found = find(targets, module) if "down" in halves else ()
        if not found:
            unmatched.extend(key for key, _ in halves.values())
            continue
        for target, layer in zip(found, _cut(file, module, halves, found, alphas), strict=True):
            of_network = layers.setdefault(target.network, {})
            if target.name in of_network:
                raise ModelFolderError(
                    f"{file}: changes {target.published} twice, the second time as {module}."
                )
            of_network[target.name] = layer
    return {network: layers[network] for network in get_args(Network) if network in layers}


def _cut(
    file: Path,
    module: str,
    halves: Mapping[Half, tuple[str, Tensor]],
    targets: tuple[Target, ...],
    alphas: Alphas,
) -> list[LoraLayer]:
    """One layer for each target: a joint weight of q, k and v shares its down-projection."""
    (down_key, down), (up_key, up) = halves["down"], halves["up"]
    for half, (key, tensor) in halves.items():
        if half != "alpha" and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelFolderError(
                f"{file}: expected floating-point numbers as {key}, found {kind}; save the LoRA in "
                "fp32, fp16 or bf16."
            )
        if not tensor.float().isfinite().all():
            raise ModelFolderError(f"{file}: {key} holds values that are not finite numbers.")
    expected = f"{targets[0].inputs} inputs and {sum(t.outputs for t in targets)} outputs"
    if (
        min(down.dim(), up.dim()) < 2
        or not (down.numel() and up.numel())
        or len(down) != up[0].numel()
    ):
        raise ModelFolderError(
            f"{file}: {down_key} of shape {list(down.shape)} and {up_key} of shape "
            f"{list(up.shape)} do not share a rank; expected a LoRA of {expected}."
        )
    down, up = down.float().flatten(1), up.float().flatten(1)  # (R, I), (O, R)
    if down.shape[1] != targets[0].inputs or len(up) != sum(t.outputs for t in targets):
        raise ModelFolderError(
            f"{file}: is a LoRA for another model: {module} has {expected} here, and "
            f"{down.shape[1]} inputs and {len(up)} outputs in the file"
            f"{_whose(down.shape[1], len(up))}."
        )
    if "alpha" in halves:
        alpha = _number(file, *halves["alpha"])
    else:
        said = alphas.of(module, len(down))
        alpha = default_alpha(down_key, len(down)) if said is None else said
    if not math.isfinite(alpha):
        raise ModelFolderError(f"{file}: the alpha of {module} should be finite, found {alpha}.")
    ups = up.split([target.outputs for target in targets])
    kernel = targets[0].kernel
    return [LoraLayer(down=down, up=each.contiguous(), alpha=alpha, kernel=kernel) for each in ups]


def _number(file: Path, key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise ModelFolderError(
            f"{file}: expected one number as {key}, found the shape {list(tensor.shape)}."
        )
    return float(tensor.to(torch.float32).item())


def _whose(*widths: int) -> str:
    return " (2048 is the width of Stable Cascade, v3)" if 2048 in widths else ""


def _check_unmatched(
    file: Path, unmatched: list[str], layers: Mapping[Network, object], allowed: bool
) -> None:
    if not unmatched:
        return
    listed = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
    count = f"{len(unmatched)} keys" if len(unmatched) > 1 else "1 key"
    if not allowed or not layers:
        if not layers:
            hint = "it is for another model, or for a network that is not loaded"
        elif all("depthwise" in key for key in unmatched):
            hint = (
                "depthwise convolutions take no LoRA here; train it without them, or use the rest"
            )
        else:
            hint = "use the rest"
        hint += " by load_lora_weights(..., allow_unmatched=True)" if layers else ""
        raise ModelFolderError(f"{file}: {count} of the LoRA fit no layer ({listed}); {hint}.")
    warnings.warn(
        f"{file}: {count} of the LoRA fit no layer and are left out: {listed}", stacklevel=3
    )
