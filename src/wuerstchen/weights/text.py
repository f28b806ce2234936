"""Saving and loading text encoders: CLIP text models and tokenizers, as `transformers` has them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from wuerstchen.errors import ModelFolderError
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.files import read_json, replacing, standing, write_tensors
from wuerstchen.weights.layout import (
    CONFIG,
    OLDER_VOCABULARY,
    PLACES,
    TOKENIZER_CONFIG,
    VOCABULARY,
    Part,
    has_vocabulary,
    need_part,
)
from wuerstchen.weights.text_values import check_length, check_sizes

WEIGHTS = "model.safetensors"

BESIDE = re.compile(
    r"((text_model\.)?embeddings\.position_ids|text_projection\.weight|logit_scale"
    r"|visual_projection\.weight|vision_model\..+)"
)
"""Keys that published files hold beside a text model: positions, projections, the whole CLIP."""

DAMAGES = (
    AttributeError,
    KeyError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What `transformers` raises over a text model whose values or files are damaged."""


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
    check_sizes(folder / CONFIG)
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
    except DAMAGES as error:
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP text model ({_line(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    model, report = cast("tuple[CLIPTextModel, Mapping[str, Collection[str]]]", loaded)
    # transformers fills gaps with random numbers, and leaves out layers that the config does not
    # count; nobody wants to draw with either.
    missing = sorted(report["missing_keys"])
    surplus = sorted(key for key in report["unexpected_keys"] if not BESIDE.fullmatch(key))
    if missing:
        raise ModelFolderError(
            f"{path}: {len(missing)} tensors of the text model that {CONFIG} beside it describes "
            f"are missing ({_some(missing)}); copy both files again."
        )
    if surplus:
        raise ModelFolderError(
            f"{path}: expected the tensors of the text model that {CONFIG} beside it describes, "
            f"found {len(surplus)} more ({_some(surplus)}); copy both files again."
        )
    model.eval()
    return model


def _open_tokenizer(folder: Path) -> CLIPTokenizer:
    if not has_vocabulary(folder):
        raise ModelFolderError(
            f"{folder} holds no vocabulary of a tokenizer (expected {VOCABULARY}, or "
            f"{' and '.join(OLDER_VOCABULARY)}); copy it again as a whole."
        )
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    check_length(folder / TOKENIZER_CONFIG)
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer.backend_tokenizer.encode("a")  # a vocabulary without letters fails here only
    except Exception as error:  # tokenizers has no error class of its own: it raises Exception
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP tokenizer ({_line(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    if tokenizer.pad_token is None:
        raise ModelFolderError(
            f"{folder / TOKENIZER_CONFIG}: pad_token should be a token, is null; captions shorter "
            "than the longest are filled up with it."
        )
    for note in ("is_local", "local_files_only"):  # of this reading, and not of the tokenizer
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _part(stage: Literal["b", "c"]) -> Part:
    return "text_b" if stage == "b" else "text_c"


def _line(error: Exception) -> str:
    """The first line that says something: some end in a colon, and the reason is in the next."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if not line.endswith(":")), 0)
    return " ".join(lines[: first + 1]) or type(error).__name__


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
