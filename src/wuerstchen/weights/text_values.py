"""What the JSON files of a text encoder must say, checked before `transformers` reads them."""

from collections.abc import Mapping
from pathlib import Path

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

LEAST_TOKENS = 3
"""Start, end, and something between them."""


def text_sizes(values: Mapping[str, object]) -> Mapping[str, object]:
    """The share of a config that describes the text model; that of a whole CLIP has more."""
    nested = values.get("text_config")
    return nested if isinstance(nested, dict) else values


def check_sizes(values: Mapping[str, object], path: Path) -> None:
    """What the text model is built from; for what is not there, transformers has a default."""
    for key in SIZES:
        if not _is_whole(value := values.get(key, 1), 1):
            raise ModelFolderError(f"{path}: {key} should be a whole number from 1, is {value!r}.")
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        raise ModelFolderError(f"{path}: hidden_size {width} is no multiple of {heads} heads.")
    for key in ("bos_token_id", "eos_token_id"):
        if not isinstance(value := values.get(key, 0), int):
            raise ModelFolderError(f"{path}: {key} should be a number, is {value!r}.")
    least = values.get("layer_norm_eps", 1e-5)
    if not isinstance(least, float) or not 0 < least < 1:
        raise ModelFolderError(
            f"{path}: layer_norm_eps should be a number between 0 and 1, is {least!r}."
        )
    bend = values.get("hidden_act", "gelu")
    if not isinstance(bend, str) or bend not in ACT2FN:
        raise ModelFolderError(
            f"{path}: hidden_act should be a function that transformers knows, such as quick_gelu "
            f"or gelu, is {bend!r}."
        )


def check_length(path: Path) -> None:
    """That the tokenizer says how many tokens a caption has."""
    length = read_json(path).get("model_max_length")
    if not _is_whole(length, LEAST_TOKENS):
        raise ModelFolderError(
            f"{path}: model_max_length should be a whole number from {LEAST_TOKENS}, is {length!r}."
        )


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
