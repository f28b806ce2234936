"""Saving and loading text encoders: CLIP text models and tokenizers, as `transformers` has them."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from wuerstchen.errors import ModelFolderError
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.files import read_json, replacing, standing, write_tensors
from wuerstchen.weights.layout import CONFIG, PLACES, Part, need_part

WEIGHTS = "model.safetensors"

LAYER = re.compile(r"(text_model\.)?encoder\.layers\.")
"""Key of a tensor that belongs to a layer of a text model."""

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


def save_text_encoder(
    folder: Path,
    encoder: TextEncoder,
    stage: Literal["b", "c"],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the text encoder of a stage."""
    place = PLACES[_part(stage)]
    with replacing(folder / place.folder, folder / place.tokenizer) as (model, tokenizer), _quiet():
        encoder.model.save_pretrained(model)
        # Written again, because only so the config goes on to say fp32, in which it is to be used.
        write_tensors(model / WEIGHTS, dict(encoder.model.state_dict()), dtype)
        encoder.tokenizer.save_pretrained(tokenizer)


def load_text_encoder(folder: Path, stage: Literal["b", "c"]) -> TextEncoder:
    """Read the text encoder of a stage: fp32, CPU, eval mode."""
    part = _part(stage)
    model = need_part(folder, part)
    return open_text_encoder(model, standing(folder / PLACES[part].tokenizer))


def open_text_encoder(model_folder: Path, tokenizer_folder: Path) -> TextEncoder:
    """Read a CLIP text model and a tokenizer from folders of their own, for example published ones.

    Raises ModelFolderError where a file is missing or damaged, or the two do not fit together.
    """
    model = _open_model(model_folder)
    tokenizer = _open_tokenizer(tokenizer_folder)
    places, tokens = model.config.max_position_embeddings, tokenizer.model_max_length
    if tokens > places:
        raise ModelFolderError(
            f"{tokenizer_folder} makes up to {tokens} tokens per caption, but the text encoder in "
            f"{model_folder} reads {places}; use the tokenizer that it was trained with."
        )
    largest = max(tokenizer.get_vocab().values())
    if largest >= model.config.vocab_size:
        raise ModelFolderError(
            f"{tokenizer_folder} has a token {largest}, but the text encoder in {model_folder} "
            f"knows {model.config.vocab_size}; use the tokenizer that it was trained with."
        )
    return TextEncoder(model, tokenizer)


def _open_model(folder: Path) -> CLIPTextModel:
    _check_sizes(folder / CONFIG)
    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt"), _quiet():
            loaded: object = CLIPTextModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelFolderError(
            f"{path} cannot be read as a CLIP text model ({_line(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    model, report = cast("tuple[CLIPTextModel, Mapping[str, Collection[str]]]", loaded)
    # transformers fills gaps with random numbers, which nobody wants to draw with, and leaves out
    # layers that the config does not count. What published files hold beside layers is no text.
    missing = sorted(report["missing_keys"])
    surplus = sorted(k for k in report["unexpected_keys"] if LAYER.match(k))
    for keys, what in ((missing, "are missing"), (surplus, f"have no place by {CONFIG}")):
        if keys:
            raise ModelFolderError(
                f"{path}: {len(keys)} tensors of the text model {what} "
                f"({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})."
            )
    model.eval()
    return model


def _check_sizes(path: Path) -> None:
    """What the text model is built from: whole numbers that fit each other."""
    values = read_json(path)
    for key in SIZES:
        value = values.get(key, 1)  # transformers has a default for what is not there
        if not isinstance(value, int) or value < 1:
            raise ModelFolderError(f"{path}: {key} should be a whole number from 1, is {value!r}.")
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        raise ModelFolderError(f"{path}: hidden_size {width} is no multiple of {heads} heads.")
    for key in ("bos_token_id", "eos_token_id"):
        if not isinstance(values.get(key, 0), int):
            raise ModelFolderError(f"{path}: {key} should be a number, is {values[key]!r}.")


def _open_tokenizer(folder: Path) -> CLIPTokenizer:
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP tokenizer ({_line(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    length = tokenizer.model_max_length
    if not isinstance(length, int | float) or length < LEAST_TOKENS:
        raise ModelFolderError(
            f"{folder / 'tokenizer_config.json'}: model_max_length should be a number from "
            f"{LEAST_TOKENS}, is {length!r}."
        )
    for note in ("is_local", "local_files_only"):  # of this reading, and not of the tokenizer
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def _part(stage: Literal["b", "c"]) -> Part:
    return "text_b" if stage == "b" else "text_c"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no reports of transformers: what matters is raised."""
    bars, level = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
