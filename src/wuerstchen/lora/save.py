"""Save a LoRA in the format of other tools."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.lora.keys import METADATA
from wuerstchen.lora.layers import flat, published_name
from wuerstchen.lora.load import PEFT_CONFIG, PEFT_WEIGHTS
from wuerstchen.lora.lora import Lora, LoraLayer, Network

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
    elif style == "diffusers":
        configs: dict[str, object] = {}
        tensors: dict[str, Tensor] = {}
        for network, layers in lora.layers.items():
            prefix = _DIFFUSERS[network]
            tensors.update(_halves(f"{prefix}.", network, layers, dtype))
            config = peft_config(network, layers)
            configs |= {f"{prefix}.{key}": value for key, value in config.items()}
        text = json.dumps(configs, sort_keys=True)
        write_file(path, save(tensors, metadata={"format": "pt", METADATA: text}))
    else:
        _save_kohya(path, lora, dtype)


def save_all_styles(folder: Path, lora: Lora) -> None:
    """Write `lora` into FOLDER/lora in every style, named by the networks that it changes.

    Raises SaveError where nothing can be written.
    """
    name = "-".join(lora.networks)
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
    tensors = dict(_halves("base_model.model.", network, layers, dtype))
    config = {**peft_config(network, layers), "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_file(folder / PEFT_WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_file(folder / PEFT_CONFIG, text.encode())


def _save_kohya(path: Path, lora: Lora, dtype: torch.dtype) -> None:
    tensors = {}
    for network, layers in lora.layers.items():
        for name, layer in layers.items():
            module = f"{_KOHYA[network]}_{flat(published_name(name, network))}"
            down, up = layer.halves()
            tensors[f"{module}.lora_down.weight"] = _stored(module, down, dtype)
            tensors[f"{module}.lora_up.weight"] = _stored(module, up, dtype)
            tensors[f"{module}.alpha"] = torch.tensor(layer.alpha)
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "wuerstchen-v2/lora",
        "modelspec.title": path.stem,
        "ss_network_module": "networks.lora",
    }
    write_file(path, save(tensors, metadata=metadata))


def _halves(
    prefix: str, network: Network, layers: Mapping[str, LoraLayer], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    for name, layer in layers.items():
        module = f"{prefix}{published_name(name, network)}"
        down, up = layer.halves()
        yield f"{module}.lora_A.weight", _stored(module, down, dtype)
        yield f"{module}.lora_B.weight", _stored(module, up, dtype)


def _stored(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    kept = values.to(dtype, copy=True).contiguous()  # thirds of a joint weight share memory
    if not kept.isfinite().all():
        raise SaveError(f"the LoRA of {name} is not finite as {dtype}, so nothing was written.")
    return kept
