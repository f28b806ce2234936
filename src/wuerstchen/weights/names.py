"""Our names of classes, tensors and config keys, and the published ones of diffusers 0.42.1."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from reprlib import repr as brief
from typing import NamedTuple, TypeVar

import torch
from pydantic import ValidationError
from transformers import CLIPTextConfig, CLIPTextModel

from wuerstchen.config import Section
from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.identify import GENERATIONS, NEEDS, V3_CLASSES
from wuerstchen.weights.layout import ComponentName

DIFFUSERS_VERSION = "0.42.1"
S = TypeVar("S", bound=Section)


class Names(NamedTuple):
    """The published names of one network."""

    class_name: str
    tensors: Mapping[str, str]
    """Our prefixes of tensor names to the published ones; all others are equal."""
    keys: Mapping[str, str]
    """Our config keys to the published ones."""
    fixed: Mapping[str, object]
    """Published config keys with the only values that can be opened."""


STAGE_A = Names(
    "PaellaVQModel",
    {"codebook.embedding": "vquantizer.embedding"},
    {
        "width": "embed_dim",
        "depth": "bottleneck_blocks",
        "latent_channels": "latent_channels",
        "codebook": "num_vq_embeddings",
        "scale": "scale_factor",
    },
    {"in_channels": 3, "out_channels": 3, "levels": 2, "up_down_scale_factor": 2},
)
STAGE_B = Names(
    "WuerstchenDiffNeXt",
    {"text_mapper": "clip_mapper", "semantics_mappers": "effnet_mappers", "head": "clf"},
    {
        "widths": "c_hidden",
        "blocks": "blocks",
        "heads": "nhead",
        "semantics": "inject_effnet",
        "semantic_channels": "effnet_embd",
        "condition_width": "c_cond",
        "text_width": "clip_embd",
        "time_width": "c_r",
        "patch": "patch_size",
        "dropout": "dropout",
    },
    {"c_in": 4, "c_out": 4, "kernel_size": 3},
)
STAGE_C = Names(
    "WuerstchenPrior",
    {"text_mapper": "cond_mapper", "head": "out"},
    {
        "semantic_channels": "c_in",
        "width": "c",
        "depth": "depth",
        "heads": "nhead",
        "text_width": "c_cond",
        "time_width": "c_r",
        "dropout": "dropout",
    },
    {},
)
PER_LEVEL = ("blocks", "level_config", "nhead")
"""Lists of Stage B of which the first entries are read, as many as it has levels."""
OWN_STAGE_B, OWN_STAGE_C = "WuerstchenStageB", "WuerstchenStageC"
"""Classes of networks that have a key of `OWN_KEYS`, which no class of diffusers has."""

OWN_KEYS: dict[str, object] = {
    "predicts": "noise",
    "subpixel_channels": 0,
    "patch_embedding": False,
}
"""Config keys that the published networks lack, and the values that make a published network."""

COMPRESSOR = Names(
    "Compressor", {}, {key: key for key in ("channels", "width", "depth", "affine")}, {}
)
NAMES: dict[ComponentName, Names] = {
    "stage_a": STAGE_A,
    "stage_b": STAGE_B,
    "stage_c": STAGE_C,
    "compressor": COMPRESSOR,
}
TEXT_PREFIX = "text_model."
NOT_TEXT = re.compile(
    r"(embeddings\.position_ids|text_projection\.weight|logit_scale"
    r"|visual_projection\.weight|vision_model\..+)"
)
"""Other tensors in published files: position ids, projections, the vision model of a whole CLIP."""


def published_key(name: str, names: Names) -> str:
    """The published name of our tensor."""
    for ours, theirs in names.tensors.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def our_key(name: str, names: Names) -> str:
    """Our name of a published tensor."""
    for ours, theirs in names.tensors.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return name


def text_names(keys: Iterable[str]) -> dict[str, str]:
    """Map a file's keys to the names in a CLIPTextModel, skipping tensors of other models.

    Files have their keys with and without `text_model.`, and so do versions of transformers.
    """
    bare = {key: key.removeprefix(TEXT_PREFIX) for key in keys}
    return {
        key: _text_prefix() + name for key, name in bare.items() if not NOT_TEXT.fullmatch(name)
    }


def published_config(config: Section, names: Names) -> dict[str, object]:
    """The config.json of our section, as the published class reads it."""
    ours = config.model_dump(mode="json")
    values = {theirs: ours[key] for key, theirs in names.keys.items()}
    own = {key: ours[key] for key, value in OWN_KEYS.items() if ours.get(key, value) != value}
    if own and "predicts" in ours:
        own = {"predicts": ours["predicts"], **own}
    if names is STAGE_B:
        values["level_config"] = ["CTA" if heads else "CT" for heads in ours["heads"]]
        values["nhead"] = [heads or -1 for heads in ours["heads"]]
    return {
        "_class_name": _own_class(names) if own else names.class_name,
        "_diffusers_version": DIFFUSERS_VERSION,
        **values,
        **names.fixed,
        **own,
    }


def read_config(values: Mapping[str, object], path: Path, names: Names, section: type[S]) -> S:
    """Our section from the values of a published config.json.

    path  its file, for errors

    Raises ModelFolderError where the values do not make a valid section.
    """
    found = values.get("_class_name", names.class_name)
    if found in V3_CLASSES:
        raise ModelFolderError(
            f"{path}: expected a {names.class_name}, found a {found}, which is of "
            f"{GENERATIONS['v3']}; {NEEDS['v3']}."
        )
    own = found == _own_class(names)
    if found != names.class_name and not own:
        raise ModelFolderError(f"{path}: expected a {names.class_name}, found a {brief(found)}.")
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    expected = {*names.keys.values(), *names.fixed}
    if names is STAGE_B:
        expected.add("level_config")
    if own:
        expected |= {"predicts", *(OWN_KEYS.keys() & values.keys())} & section.model_fields.keys()
    if expected != values.keys():
        missing, unknown = sorted(expected - values.keys()), sorted(values.keys() - expected)
        raise ModelFolderError(
            f"{path}: expected the keys of a {names.class_name}, missing: "
            f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    for key, value in names.fixed.items():
        if values[key] != value:
            raise ModelFolderError(
                f"{path}: {key} is {brief(values[key])}, but only {value!r} can be opened."
            )
    if names is STAGE_B:
        if isinstance(widths := values["c_hidden"], list):
            # diffusers reads one entry per level; its defaults of other keys have four.
            for key in PER_LEVEL:
                if isinstance(entries := values[key], list):
                    values[key] = entries[: len(widths)]
        values["nhead"] = _heads(path, values["level_config"], values["nhead"])
    try:
        known = {ours: _whole(values[theirs]) for ours, theirs in names.keys.items()}
        known |= {key: values[key] for key in OWN_KEYS.keys() & values.keys()}
        # Strict, so that true is no 1 and "8" no 8; as JSON, where lists are tuples.
        return section.model_validate_json(json.dumps(known), strict=True)
    except ValidationError as error:
        raise ModelFolderError(f"{path}: {_explain(error, names)}") from None


def _own_class(names: Names) -> str:
    """The class of this network if it has a key of `OWN_KEYS`."""
    own = {STAGE_B.class_name: OWN_STAGE_B, STAGE_C.class_name: OWN_STAGE_C}
    return own.get(names.class_name, names.class_name)


@cache
def _text_prefix() -> str:
    """The prefix of tensor names in the installed version of transformers."""
    config = CLIPTextConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=1)
    with torch.device("meta"):
        tiny = CLIPTextModel(config)
    return TEXT_PREFIX if next(iter(tiny.state_dict())).startswith(TEXT_PREFIX) else ""


def _whole(value: object) -> object:
    """Numbers such as 16.0 as integers, also in lists."""
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _heads(path: Path, levels: object, heads: object) -> list[object]:
    if not isinstance(levels, list) or not isinstance(heads, list) or len(levels) != len(heads):
        raise ModelFolderError(
            f"{path}: level_config and nhead must be lists of equal length, "
            f"found {brief(levels)} and {brief(heads)}."
        )
    for level in levels:
        if level not in ("CT", "CTA"):
            raise ModelFolderError(f"{path}: level_config has {brief(level)}, expected CT or CTA.")
    return [count if level == "CTA" else 0 for level, count in zip(levels, heads, strict=True)]


def _explain(error: ValidationError, names: Names) -> str:
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        return f"{message}."
    key = names.keys.get(str(first["loc"][0]), str(first["loc"][0]))
    return f"{key}: {message}, found {brief(first['input'])}."
