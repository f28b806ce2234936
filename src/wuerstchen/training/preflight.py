"""What is looked at before the first byte of work: paths, models to start from, devices.

A slip in what Stage C will open must not come up after days of Stages A and B.
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
from wuerstchen.training.stage import RunName, section_of
from wuerstchen.weights import ComponentFiles, ComponentName, check_component, component_in
from wuerstchen.weights.hub import BUNDLED, find, is_here, is_hub_id
from wuerstchen.weights.layout import PLACES
from wuerstchen.weights.scan import scan

_LAUNCHES = tuple(
    DistributedType(kind) for kind in ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU")
)
"""What Accelerate may have started; how networks are spread is a matter of the config."""


def check_paths(config: Config, waiting: Sequence[RunName]) -> None:
    """Whatever a later step will open is looked for now, not after days of training."""
    named = {
        "stage_a.training.init_from": ("a", config.stage_a.training.init_from),
        "stage_a.training.vgg16_weights": ("a", config.stage_a.training.vgg16_weights),
        "stage_b.training.init_from": ("b", config.stage_b.training.init_from),
        "stage_b.training.compressor_weights": ("b", config.stage_b.training.compressor_weights),
        "stage_c.training.init_from": ("c", config.stage_c.training.init_from),
        "text.pretrained": (
            "bc" if config.stage_b.training.text_conditioning else "c",
            config.text.pretrained,
        ),
        "text.pretrained_b": ("b", config.text.pretrained_b),
    }
    for key, (stages, path) in named.items():
        if not path or not any(stage in waiting for stage in stages):
            continue
        is_model = key.endswith(".init_from")
        if not (is_here(path) if is_model else Path(path).exists()):
            if is_model and is_hub_id(path):
                raise TrainingError(
                    f"{key} is {path!r}, expected a model folder, found no such path here; if it "
                    f"is a model on the hub, make a folder of it with `wuerstchen convert {path} "
                    "models/base --to diffusers`, and name that."
                )
            other = f", or name the bundled model, {BUNDLED}" if is_model else ""
            raise TrainingError(
                f"{key} is {path!r}, but there is nothing; correct the path, relative ones begin "
                f"at {Path.cwd()}{other}."
            )


def check_device() -> None:
    """Refuse to work on a CPU where an accelerator was asked for; a log of days says it late."""
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
            f"{asked} asks for an accelerator, found {found.type if found else 'none'} by torch "
            f"{torch.__version__}; check its driver and that this torch is built for it, or leave "
            "the setting (and --gpu_ids) out to train without."
        )


def check_models(config: Config, waiting: Sequence[RunName]) -> None:
    """All models to start from are whole, of version 2 and of sizes that fit; no weight is read.

    Raises ModelFolderError or TrainingError.
    """
    if "a" in waiting and config.stage_a.training.init_from:
        weights.stage_a.config(_start("a", "stage_a", config))
    if "b" not in waiting and "c" not in waiting:
        return
    files_b = _source("b", "stage_b", config, waiting)
    b = config.stage_b.model if files_b is None else weights.stage_b.config(files_b)
    below = _source("b", "compressor", config, waiting)
    made = config.compressor if below is None else weights.compressor.config(below)
    _equal(
        "channels of semantics of the compressor and of Stage B", made.channels, b.semantic_channels
    )
    if config.stage_b.training.text_conditioning:
        _equal("text widths of its encoder and of Stage B", _text_b(config), b.text_width)
    if "c" not in waiting:
        return
    files_c = _source("c", "stage_c", config, waiting)
    c = config.stage_c.model if files_c is None else weights.stage_c.config(files_c)
    _equal(
        "channels of semantics of the compressor and of Stage C", made.channels, c.semantic_channels
    )
    _equal("text widths of its encoder and of Stage C", _text_c(config), c.text_width)
    shared = (
        not config.stage_b.training.text_conditioning
    )  # then the folder will have one encoder for both
    if shared and (width := _text_c(config)) != b.text_width:
        raise TrainingError(
            f"Stage B expects text of width {b.text_width}, but without an encoder of its own "
            f"would be given that of Stage C, of width {width}; set stage_b.training.text_conditioning=true "
            "where its start has one, or make the widths equal."
        )


def _source(
    stage: RunName, part: ComponentName, config: Config, waiting: Sequence[RunName]
) -> ComponentFiles | None:
    """The part that will be worked with; None where it will be made anew."""
    if stage not in waiting:
        return component_in(config.folder, part)
    recipe = config.stage_b.training if stage == "b" else config.stage_c.training
    return _start(stage, part, config) if recipe.init_from else None


def _start(stage: RunName, part: ComponentName, config: Config) -> ComponentFiles:
    """A part of the model that a stage starts from."""
    starts = {"a": config.stage_a.training.init_from, "b": config.stage_b.training.init_from}
    folder = find(starts.get(stage, config.stage_c.training.init_from))
    scan(folder)  # names other generations, in whatever form they are
    if folder.is_file():
        raise ModelFolderError(
            f"stage_{stage}.training.init_from is {str(folder)!r}, expected a model folder, found a "
            "file; make a folder of it with `wuerstchen convert`."
        )
    found = component_in(folder, part)
    check_component(found)
    return found


def _text_b(config: Config) -> int:
    named = config.text.pretrained_b or config.text.pretrained
    return _width(named) if named else _text_width(_start("b", "text_b", config))


def _text_c(config: Config) -> int:
    if config.text.pretrained:
        return _width(config.text.pretrained)
    if config.stage_c.training.init_from:
        return _text_width(_start("c", "text_c", config))
    return config.text.width


def _width(named: str) -> int:
    """Of a published text encoder with its tokenizer."""
    folder = Path(named)
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
    weights.text_c.empty(found)
    return _text_width(found)


def _text_width(files: ComponentFiles) -> int:
    return int(weights.text_c.config(files).hidden_size)


def _equal(what: str, one: int, other: int) -> None:
    if one != other:
        raise TrainingError(
            f"The {what} must be equal, found {one} and {other}; correct the sizes in the config, "
            "or start from models that were trained together."
        )


def check_share(name: RunName, recipe: TrainingConfig, accelerator: Accelerator) -> None:
    if accelerator.distributed_type not in _LAUNCHES:
        instead = "" if name == "a" else f", and set {section_of(name)}.sharded=true"
        raise TrainingError(
            f"Expected plain processes, found a launch with {accelerator.distributed_type.value}; "
            f"leave --use_fsdp and the like out{instead}."
        )
    parts = recipe.gradient_accumulation * accelerator.num_processes
    if recipe.batch_size % parts:
        raise TrainingError(
            f"The batch of stage {name} is {recipe.batch_size}, but processes ("
            f"{accelerator.num_processes}) and accumulate ({recipe.gradient_accumulation}) share it equally; "
            f"set it to a multiple of {parts}."
        )
