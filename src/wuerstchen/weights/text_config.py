"""CLIP text configs and key names, checked and translated before `transformers` reads them."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.activations import ACT2FN

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import read_json

SIZES = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)

MIN_TOKENS = 3
"""Start, end, and one token between them."""

PREFIX = "text_model."
NOT_TEXT = re.compile(
    r"(embeddings\.position_ids|text_projection\.weight|logit_scale"
    r"|visual_projection\.weight|vision_model\..+)"
)
"""Other tensors in published files: position ids, projections, the vision model of a whole CLIP."""


def text_section(values: Mapping[str, object]) -> Mapping[str, object]:
    """The text model's section of a config; the config of a whole CLIP nests it."""
    nested = values.get("text_config")
    return nested if isinstance(nested, dict) else values


def check_text_config(values: Mapping[str, object], path: Path) -> None:
    """Check the values that shape the text model; transformers has defaults for absent ones."""
    for key in SIZES:
        if not _is_int(value := values.get(key, 1), 1):
            raise ModelFolderError(f"{path}: {key} should be a positive integer, found {value!r}.")
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        raise ModelFolderError(
            f"{path}: hidden_size {width} should be a multiple of num_attention_heads {heads}."
        )
    for key in ("bos_token_id", "eos_token_id"):
        if not isinstance(value := values.get(key, 0), int):
            raise ModelFolderError(f"{path}: {key} should be an integer, found {value!r}.")
    epsilon = values.get("layer_norm_eps", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ModelFolderError(
            f"{path}: layer_norm_eps should be a number between 0 and 1, found {epsilon!r}."
        )
    activation = values.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACT2FN:
        raise ModelFolderError(
            f"{path}: hidden_act should be an activation that transformers knows, such as "
            f"quick_gelu or gelu, found {activation!r}."
        )


def check_max_length(path: Path) -> None:
    """Check that tokenizer_config.json limits the tokens of a caption."""
    length = read_json(path).get("model_max_length")
    if not _is_int(length, MIN_TOKENS):
        raise ModelFolderError(
            f"{path}: model_max_length should be an integer of at least {MIN_TOKENS}, found "
            f"{length!r}."
        )


def text_names(keys: Iterable[str]) -> dict[str, str]:
    """Map a file's keys to the names in a CLIPTextModel, skipping tensors of other models.

    Files have their keys with and without `text_model.`, and so do versions of transformers.
    """
    bare = {key: key.removeprefix(PREFIX) for key in keys}
    return {key: _prefix() + name for key, name in bare.items() if not NOT_TEXT.fullmatch(name)}


@cache
def _prefix() -> str:
    """The prefix of tensor names in the installed version of transformers."""
    with torch.device("meta"):
        tiny = CLIPTextModel(
            CLIPTextConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=1)
        )
    return PREFIX if next(iter(tiny.state_dict())).startswith(PREFIX) else ""


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
