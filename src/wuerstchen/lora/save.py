"""Save a LoRA in the format of other tools."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.lora.layers import flat, published_name
from wuerstchen.lora.load import PEFT_CONFIG, PEFT_WEIGHTS
from wuerstchen.lora.lora import Lora, LoraLayer, Network
from wuerstchen.lora.sources import METADATA

Style = Literal["peft", "diffusers", "kohya"]

_KOHYA: Mapping[Network, str] = {
    "stage_c": "lora_prior_unet",
    "stage_b": "lora_unet",
    "text_c": "lora_prior_te",
}
_DIFFUSERS: Mapping[Network, str] = {
    "stage_c": "prior",
    "stage_b": "decoder",
    "text_c": "text_encoder",
}
_KOHYA_METADATA = {
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "wuerstchen-v2/lora",
    "ss_network_module": "networks.lora",
}


def save_lora(path: Path, lora: Lora, *, style: Style, dtype: torch.dtype = torch.float32) -> None:
    """Write `lora` in the style of one tool.

    peft       the folder `path` with adapter_config.json, for one network
    diffusers  the file `path`, with the alphas in its metadata, where diffusers expects them
    kohya      the file `path`, which ComfyUI, OneTrainer and others open too

    Raises ConfigError for a LoRA or name that the style cannot have, SaveError where nothing can be
    written.
    """
    if style not in get_args(Style):
        raise ConfigError(f"expected a style of {', '.join(get_args(Style))}, found {style!r}.")
    if style != "peft" and path.suffix != ".safetensors":
        raise ConfigError(f"{path}: expected a name ending in .safetensors.")
    if style == "peft":
        _save_peft(path, lora, dtype)
        return
    metadata = {"format": "pt"}
    if style == "diffusers":
        configs = {
            f"{_DIFFUSERS[network]}.{key}": value
            for network, layers in lora.layers.items()
            for key, value in peft_config(network, layers).items()
        }
        metadata[METADATA] = json.dumps(configs, sort_keys=True)
    else:
        metadata |= _KOHYA_METADATA | {"modelspec.title": path.stem}
    write_file(path, save(_tensors(lora, style, dtype), metadata=metadata))


def save_all_styles(folder: Path, lora: Lora) -> None:
    """Write `lora` into FOLDER/lora in every style, named by the networks that it changes.

    Raises SaveError where nothing can be written.
    """
    name = "-".join(lora.layers)
    save_lora(folder / "lora" / f"{name}.safetensors", lora, style="kohya")
    save_lora(folder / "lora" / f"{name}-diffusers.safetensors", lora, style="diffusers")
    for network, layers in lora.layers.items():
        alone = Lora(source=lora.source, format=lora.format, layers={network: layers})
        save_lora(folder / "lora" / f"{network}-peft", alone, style="peft")


def peft_config(network: Network, layers: Mapping[str, LoraLayer]) -> dict[str, object]:
    """The values of peft's LoraConfig for these layers."""
    by_name = {published_name(name, network): layer for name, layer in layers.items()}
    first = next(iter(by_name.values()))
    return {
        "peft_type": "LORA",
        "r": first.rank,
        "lora_alpha": first.alpha,
        "target_modules": sorted(by_name),
        "rank_pattern": {
            f"^{name}": layer.rank for name, layer in by_name.items() if layer.rank != first.rank
        },
        "alpha_pattern": {
            f"^{name}": layer.alpha for name, layer in by_name.items() if layer.alpha != first.alpha
        },
    }


def _save_peft(folder: Path, lora: Lora, dtype: torch.dtype) -> None:
    if len(lora.layers) != 1:
        raise ConfigError(
            f"a folder of peft has the LoRA of one network, but {lora.source} changes "
            f"{', '.join(lora.layers)}; save it as kohya or diffusers."
        )
    ((network, layers),) = lora.layers.items()
    tensors = _tensors(lora, "peft", dtype)
    config = {**peft_config(network, layers), "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_file(folder / PEFT_WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_file(folder / PEFT_CONFIG, text.encode())


def _tensors(lora: Lora, style: Style, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {}
    halves = ("lora_down", "lora_up") if style == "kohya" else ("lora_A", "lora_B")
    for (network, name), layer in lora.items():
        module = published_name(name, network)
        if style == "kohya":
            module = f"{_KOHYA[network]}_{flat(module)}"
            tensors[f"{module}.alpha"] = torch.tensor(layer.alpha)
        else:
            prefix = _DIFFUSERS[network] if style == "diffusers" else "base_model.model"
            module = f"{prefix}.{module}"
        for half, values in zip(halves, layer.halves(), strict=True):
            # Copied, since thirds of a joint weight share memory.
            kept = values.to(dtype, copy=True).contiguous()
            if not kept.isfinite().all():
                raise SaveError(f"the LoRA of {module} is not finite as {dtype}; nothing is saved.")
            tensors[f"{module}.{half}.weight"] = kept
    return tensors
