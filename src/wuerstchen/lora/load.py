"""Load a LoRA of any tool: keys identify its format, and either it fits or an error is raised."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from torch import Tensor

from wuerstchen.errors import ConfigError, ModelFolderError, UnusedWarning, os_errors_as
from wuerstchen.lora.keys import Half, foreign, format_of, parse, refused
from wuerstchen.lora.layers import Target, Targets, all_targets, find
from wuerstchen.lora.lora import Lora, LoraLayer, Network
from wuerstchen.lora.stated import Stated
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.files import read_json
from wuerstchen.weights.headers import mapped, read_header

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"

Halves = dict[Half, tuple[str, Tensor]]
"""The halves of a module, with their keys."""
Modules = dict[str, Halves]
"""Modules by their names in the file."""


def parse_lora(argument: str) -> tuple[Path, float]:
    """Parse `PATH` or `PATH=WEIGHT` of a command line; the default weight is 1."""
    path, equals, weight = argument.rpartition("=")
    if not equals or Path(argument).exists():
        return Path(argument), 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not path or not math.isfinite(number):
        raise ConfigError(
            "expected a LoRA as PATH or PATH=WEIGHT such as dog.safetensors=0.8, found "
            f"{argument!r}."
        )
    return Path(path), number


@os_errors_as(ModelFolderError)
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
    allow_unmatched  warn about keys that match no layer of these networks, instead of refusing

    Raises ModelFolderError for a file that is damaged, no LoRA, or a LoRA for another model; warns
    of what its config or metadata states and is not used.
    """
    file, config_file = _find_file(path)
    header = read_header(file)
    tensors = mapped(file, header.tensors)
    if adapter := refused(tensors):
        raise ModelFolderError(
            f"{file}: expected a plain LoRA, found {adapter}; merge it into the weights with the "
            "tool that made it and open the result as a model."
        )
    if other := foreign(tensors):
        raise ModelFolderError(
            f"{file}: expected a LoRA for Würstchen v2, found one for {other[0]} ({other[1]})."
        )
    config = read_json(config_file) if config_file else None
    stated = Stated(config_file or file, config, header.metadata)
    modules, unmatched = _group(file, tensors)
    layers = _fit(file, modules, all_targets(stage_c, stage_b, text_c), stated, unmatched)
    _check_unmatched(file, unmatched, layers, allow_unmatched)
    for sentence in stated.warnings():
        warnings.warn(sentence, UnusedWarning, stacklevel=2)
    style = format_of(tensors, header.metadata)
    return Lora(source=str(path), format=style, layers=layers, unmatched=tuple(unmatched))


def _find_file(path: Path) -> tuple[Path, Path | None]:
    """The file of weights and, in a folder of peft, its config."""
    if path.is_dir():
        found = list(path.glob("*.safetensors"))
        if (path / PEFT_CONFIG).exists():
            path = path / PEFT_WEIGHTS
        elif (path / DIFFUSERS_WEIGHTS).exists():
            path = path / DIFFUSERS_WEIGHTS
        elif len(found) == 1:
            path = found[0]
        else:
            raise ModelFolderError(
                f"{path}: expected a folder with {PEFT_CONFIG} or one .safetensors file, found "
                f"{len(found) or 'no'} such files; name the file of the LoRA."
            )
    if not path.is_file():
        raise ModelFolderError(f"{path}: expected a LoRA file, but it does not exist.")
    if path.suffix != ".safetensors":
        raise ModelFolderError(
            f"{path}: expected a LoRA as .safetensors; other files can run code when they are "
            "opened, so convert it with the tool that made it."
        )
    config = path.with_name(PEFT_CONFIG)
    return path, config if path.name == PEFT_WEIGHTS and config.exists() else None


def _group(file: Path, tensors: Mapping[str, Tensor]) -> tuple[Modules, list[str]]:
    """The halves of each module, and the keys that no LoRA has."""
    modules: Modules = {}
    others = []
    for key, tensor in tensors.items():
        if (parsed := parse(key)) is None:
            others.append(key)
            continue
        module, half = parsed
        first, _ = modules.setdefault(module, {}).setdefault(half, (key, tensor))
        if first != key:
            raise ModelFolderError(
                f"{file}: contains more than one LoRA, {first} and {key}; save them separately."
            )
    if not any("down" in halves or "up" in halves for halves in modules.values()):
        raise ModelFolderError(
            f"{file}: expected a LoRA with keys such as ….lora_A.weight or ….lora_down.weight, "
            f"found {next(iter(tensors), 'nothing')}."
        )
    for halves in modules.values():
        missing = [half for half in ("down", "up") if half not in halves]
        if len(missing) == 1:
            key = next(key for key, _ in halves.values())
            raise ModelFolderError(
                f"{file}: {key} lacks its lora_{missing[0]} half; copy or download it again."
            )
    return modules, others


def _fit(
    file: Path, modules: Modules, targets: Targets, stated: Stated, unmatched: list[str]
) -> dict[Network, dict[str, LoraLayer]]:
    """The layers of the file under our names; keys that match no layer go to `unmatched`."""
    layers: dict[Network, dict[str, LoraLayer]] = {}
    for module, halves in modules.items():
        found = find(targets, module) if "down" in halves else ()
        if not found:
            unmatched.extend(key for key, _ in halves.values())
            continue
        for target, layer in zip(found, _split(file, module, halves, found, stated), strict=True):
            of_network = layers.setdefault(target.network, {})
            if target.name in of_network:
                raise ModelFolderError(
                    f"{file}: changes {target.published} twice, the second time as {module}."
                )
            of_network[target.name] = layer
    return {network: layers[network] for network in get_args(Network) if network in layers}


def _split(
    file: Path, module: str, halves: Halves, targets: Sequence[Target], stated: Stated
) -> list[LoraLayer]:
    """One layer per target: q, k and v of a joint weight share its down-projection."""
    (down_key, down), (up_key, up) = halves["down"], halves["up"]
    for half, (key, tensor) in halves.items():
        if half != "alpha" and not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ModelFolderError(
                f"{file}: expected floating-point values in {key}, found {dtype}; save it as fp32."
            )
        if not tensor.float().isfinite().all():
            raise ModelFolderError(f"{file}: {key} has values that are not finite.")
    inputs, outputs = targets[0].inputs, [target.outputs for target in targets]
    expected = f"{inputs} inputs and {sum(outputs)} outputs"
    matrices = min(down.dim(), up.dim()) >= 2 and down.numel() and up.numel()
    if not matrices or len(down) != up[0].numel():
        raise ModelFolderError(
            f"{file}: {down_key} of shape {list(down.shape)} and {up_key} of shape "
            f"{list(up.shape)} do not share a rank; expected a LoRA of {expected}."
        )
    down, up = down.float().flatten(1), up.float().flatten(1)  # (R, I), (O, R)
    if down.shape[1] != inputs or len(up) != sum(outputs):
        wide = 2048 in (down.shape[1], len(up))
        raise ModelFolderError(
            f"{file}: is a LoRA for another model: {module} has {expected} here, but "
            f"{down.shape[1]} inputs and {len(up)} outputs in the file"
            f"{' (2048 is the width of Stable Cascade, v3)' if wide else ''}."
        )
    alpha, kernel = _alpha(file, module, halves, targets[0], stated), targets[0].kernel
    ups = [each.contiguous() for each in up.split(outputs)]
    return [LoraLayer(down=down, up=each, alpha=alpha, kernel=kernel) for each in ups]


def _alpha(file: Path, module: str, halves: Halves, target: Target, stated: Stated) -> float:
    of_tensor: float | None = None
    if "alpha" in halves:
        key, tensor = halves["alpha"]
        if tensor.numel() != 1:
            raise ModelFolderError(
                f"{file}: expected one number in {key}, found the shape {list(tensor.shape)}."
            )
        of_tensor = float(tensor.float())
    down_key, down = halves["down"]
    alpha = stated.alpha(module, target, len(down), of_tensor)
    if alpha is None:
        # Without an alpha the scale is 1; in StableCascade's modules/lora.py it is 1 / rank.
        alpha = 1.0 if ".parametrizations." in down_key else float(len(down))
    if not math.isfinite(alpha):
        raise ModelFolderError(f"{file}: the alpha of {module} should be finite, found {alpha}.")
    return alpha


def _check_unmatched(
    file: Path, unmatched: list[str], layers: Mapping[Network, object], allowed: bool
) -> None:
    if not unmatched:
        return
    listed = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
    count = f"{len(unmatched)} keys" if len(unmatched) > 1 else "1 key"
    if not allowed or not layers:
        hint = "use the rest by load_lora_weights(..., allow_unmatched=True)"
        if not layers:
            hint = "it is for another model, or for a network that is not loaded"
        elif all("depthwise" in key for key in unmatched):
            hint = f"depthwise convolutions support no LoRA; train it without them, or {hint}"
        raise ModelFolderError(f"{file}: {count} of the LoRA match no layer ({listed}); {hint}.")
    warnings.warn(
        f"{file}: {count} of the LoRA match no layer and are ignored: {listed}",
        UnusedWarning,
        stacklevel=3,
    )
