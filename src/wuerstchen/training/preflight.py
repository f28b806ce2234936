"""Checks before a training starts: paths, base models, devices, batch sizes.

A mistake in what Stage C opens must not surface after days of Stages A and B.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from wuerstchen import weights
from wuerstchen.config import Config, TrainingConfig
from wuerstchen.errors import ModelFolderError, TrainingError
from wuerstchen.training.origins import Origin, resolve
from wuerstchen.training.stage import RunName, section_of
from wuerstchen.weights.component_files import ComponentFiles, component_in
from wuerstchen.weights.hub import BUNDLED, is_here, is_hub_id
from wuerstchen.weights.layout import PLACES
from wuerstchen.weights.scan import scan, scan_component

_LAUNCHES = tuple(
    DistributedType(kind) for kind in ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU")
)
"""Launches of Accelerate that are allowed; how networks are distributed is set in the config."""


def check_paths(config: Config, waiting: Sequence[RunName]) -> None:
    """Check that every path exists which a run that is still to come will open."""
    parts = resolve(config)
    read_by: dict[RunName, tuple[Origin | None, ...]] = {
        "a": (parts.stage_a,),
        "b": (parts.stage_b, parts.text_b),
        "c": (parts.stage_c, parts.text_c, parts.text_b),
    }
    for name in waiting:
        for origin in read_by.get(name, ()):
            if origin is not None and origin.kind in ("base", "published"):
                _check_path(origin.key, origin.folder, is_model=origin.kind == "base")
    for name, key, path in (
        ("a", "stage_a.training.vgg16_weights", config.stage_a.training.vgg16_weights),
        ("b", "stage_b.training.compressor_weights", config.stage_b.training.compressor_weights),
    ):
        if path and name in waiting:
            _check_path(key, path, is_model=False)


def _check_path(key: str, path: str, *, is_model: bool) -> None:
    if is_here(path) if is_model else Path(path).exists():
        return
    if is_model and is_hub_id(path):
        raise TrainingError(
            f"{key} is {path!r}, which is not a local path; if it is a model on the hub, "
            f"convert it to a folder with `wuerstchen convert {path} models/base --to diffusers` "
            f"and set {key} to that folder."
        )
    other = f", or name the bundled model, {BUNDLED}" if is_model else ""
    raise TrainingError(
        f"{key} is {path!r}, which does not exist; correct the path (relative paths start at "
        f"{Path.cwd()}){other}."
    )


def check_device() -> None:
    """Refuse to train on a CPU where an accelerator was requested."""
    named = os.environ.get("ACCELERATE_TORCH_DEVICE", "")
    kind = named.partition(":")[0]
    found = torch.accelerator.current_accelerator(check_available=True)
    asked = ""
    if kind not in ("", "cpu") and (found is None or found.type != kind):
        asked = f"ACCELERATE_TORCH_DEVICE={named}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if found is None and visible.strip() not in ("", "-1"):
        asked = f"CUDA_VISIBLE_DEVICES={visible}"
    if asked:
        raise TrainingError(
            f"{asked} asks for an accelerator, but torch {torch.__version__} found "
            f"{found.type if found else 'none'}; check the driver and the torch build, or remove "
            "the setting (and --gpu_ids) to train on the CPU."
        )


def check_models(config: Config, waiting: Sequence[RunName]) -> None:
    """Check that base models are complete, of version 2 and of fitting sizes; by headers alone.

    Raises ModelFolderError or TrainingError.
    """
    parts = resolve(config)
    if "a" in waiting and parts.stage_a.kind == "base":
        weights.stage_a.config(_base_files(parts.stage_a))
    if "b" not in waiting and "c" not in waiting:
        return
    files_b = _files(parts.stage_b, "b", config, waiting)
    b = config.stage_b.model if files_b is None else weights.stage_b.config(files_b)
    below = _files(parts.compressor, "b", config, waiting)
    channels = (config.compressor if below is None else weights.compressor.config(below)).channels
    if b.reads_semantics:
        what = "semantic channels of the compressor and Stage B"
        _check_equal(what, channels, b.semantic_channels)
    if parts.text_b is not None:
        text_b = _text_width(parts.text_b, config)
        _check_equal("text widths of its encoder and Stage B", text_b, b.text_width)
    if "c" not in waiting:
        return
    files_c = _files(parts.stage_c, "c", config, waiting)
    c = config.stage_c.model if files_c is None else weights.stage_c.config(files_c)
    _check_equal("semantic channels of the compressor and Stage C", channels, c.semantic_channels)
    width = _text_width(parts.text_c, config)
    _check_equal("text widths of its encoder and Stage C", width, c.text_width)
    # Without an encoder of Stage B the model folder will have a single one for both.
    if parts.text_b is None and width != b.text_width:
        raise TrainingError(
            f"Stage B expects text of width {b.text_width}, but without an encoder of its own "
            f"would be given that of Stage C, of width {width}; set "
            "stage_b.training.text_conditioning=true where its base has one, or make the widths "
            "equal."
        )


def _files(
    origin: Origin, stage: RunName, config: Config, waiting: Sequence[RunName]
) -> ComponentFiles | None:
    """The files of a network that this training uses; None where it makes a new one."""
    if stage not in waiting:
        return component_in(config.folder, origin.component)
    return _base_files(origin) if origin.kind == "base" else None


def _base_files(origin: Origin) -> ComponentFiles:
    folder = origin.path
    scan(folder)  # refuses other generations by name, in whatever form they are
    if folder.is_file():
        raise ModelFolderError(
            f"{origin.key} is {str(folder)!r}, expected a model folder, found a file; make a "
            "folder of it with `wuerstchen convert`."
        )
    found = scan_component(folder, origin.component)
    weights.check_component(found)
    return found


def _text_width(origin: Origin, config: Config) -> int:
    if origin.kind not in ("base", "published"):
        return config.text.width
    files = _base_files(origin) if origin.kind == "base" else _published_files(origin.path)
    return int(weights.text_c.config(files).hidden_size)


def _published_files(folder: Path) -> ComponentFiles:
    scan(folder)
    if not (folder / "config.json").is_file():
        raise ModelFolderError(
            f"{folder}: expected the folder of a CLIP text model and its tokenizer, found no "
            "config.json; name a folder that holds both, or leave text.pretrained empty."
        )
    found = ComponentFiles(
        component="text_c",
        weights=folder / PLACES["text_c"].weights,
        config=folder / "config.json",
        tokenizer=folder,
    )
    weights.text_c.empty(found)  # checks keys and shapes
    return found


def _check_equal(what: str, one: int, other: int) -> None:
    if one != other:
        raise TrainingError(
            f"The {what} must be equal, found {one} and {other}; correct the sizes in the config, "
            "or start from models that were trained together."
        )


def check_batch(name: RunName, training: TrainingConfig, accelerator: Accelerator) -> None:
    """Check that processes and gradient accumulation divide the batch."""
    if accelerator.distributed_type not in _LAUNCHES:
        instead = "" if name == "a" else f", and set {section_of(name)}.sharded=true"
        raise TrainingError(
            f"This launch uses {accelerator.distributed_type.value}, which is not supported; "
            f"remove --use_fsdp and similar options{instead}."
        )
    device_batch(name, training, accelerator.num_processes)


def device_batch(name: RunName, training: TrainingConfig, devices: int) -> int:
    """Images of a step on each device; TrainingError where the batch cannot be shared equally."""
    accumulation = training.gradient_accumulation
    if training.batch_size % (devices * accumulation):
        sharers = "1 device" if devices == 1 else f"{devices} devices"
        times = "" if accumulation == 1 else f" with gradient_accumulation {accumulation}"
        raise TrainingError(
            f"The batch of stage {name} is {training.batch_size}, which {sharers}{times} cannot "
            f"share equally; set it to a multiple of {devices * accumulation}."
        )
    return training.batch_size // devices
