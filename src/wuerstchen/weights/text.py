"""Saving and loading text encoders: CLIP text models and tokenizers, as `transformers` has them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.utils import logging as transformers_logging

from wuerstchen.errors import ModelFolderError
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.components import copied, filled
from wuerstchen.weights.files import replacing, standing, write_tensors
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import CONFIG, PLACES, Part, need_part
from wuerstchen.weights.parts import PartFiles
from wuerstchen.weights.text_names import text_names
from wuerstchen.weights.text_values import check_sizes, text_sizes
from wuerstchen.weights.tokenizer import open_tokenizer, said_by

WEIGHTS = "model.safetensors"

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
    """Read the text encoder of a stage: fp32, CPU, eval mode, independent of its files."""
    name = _part(stage)
    model = need_part(folder, name)
    return _loaded(_files(model, standing(folder / PLACES[name].tokenizer), name))


def open_text_encoder(model_folder: Path, tokenizer_folder: Path) -> TextEncoder:
    """Read a CLIP text model and a tokenizer from folders of their own, for example published ones.

    Raises ModelFolderError where a file is missing or damaged, or the two do not fit together.
    """
    return _loaded(_files(model_folder, tokenizer_folder, "text_c"))


def open_text(part: PartFiles, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """The text encoder on the CPU in eval mode, its weights mapped from the file.

    Raises ModelFolderError as `open_text_encoder` does.
    """
    return filled(outline_text(part), part, dtype)


def outline_text(part: PartFiles) -> TextEncoder:
    """The text encoder without weights, on the meta device in eval mode, with its tokenizer.

    Keys and shapes in the file are compared with it, so that `tensors` fill it.
    """
    model = _outline(part)
    where = part.tokenizer or part.weights
    tokenizer = open_tokenizer(part)
    places, tokens = model.config.max_position_embeddings, tokenizer.model_max_length
    if tokens > places:
        raise ModelFolderError(
            f"{where} makes up to {tokens} tokens per caption, but the text encoder in "
            f"{part.weights.parent} reads {places}; use the tokenizer that it was trained with."
        )
    largest = max(tokenizer.get_vocab().values())
    if largest >= model.config.vocab_size:
        raise ModelFolderError(
            f"{where} has a token {largest}, but the text encoder in {part.weights.parent} "
            f"knows {model.config.vocab_size}; use the tokenizer that it was trained with."
        )
    return TextEncoder(model, tokenizer).eval()


def text_width(part: PartFiles) -> int:
    """D of the text encoder, from its config."""
    return int(_text_config(part).hidden_size)


def text_facts(part: PartFiles) -> dict[str, object]:
    """Its sizes by the names of our config."""
    config = _text_config(part)
    return {
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "length": config.max_position_embeddings,
    }


def _text_config(part: PartFiles) -> CLIPTextConfig:
    path, values = _sizes(part)
    check_sizes(values, path)
    try:
        return CLIPTextConfig.from_dict(dict(values))
    except DAMAGES as error:
        raise ModelFolderError(
            f"{path} cannot be read as the config of a CLIP text model ({said_by(error)})."
        ) from None


def _files(model_folder: Path, tokenizer_folder: Path, name: Part) -> PartFiles:
    return PartFiles(
        part=name,
        weights=model_folder / WEIGHTS,
        config=model_folder / CONFIG,
        tokenizer=tokenizer_folder,
    )


def _loaded(part: PartFiles) -> TextEncoder:
    return copied(outline_text(part), part)


def _sizes(part: PartFiles) -> tuple[Path, Mapping[str, object]]:
    values = part.config_values()
    if values is None:
        raise ModelFolderError(
            f"{part.weights}: a text encoder needs its {CONFIG}, found none; use a folder that has "
            "it."
        )
    return part.config or part.weights, text_sizes(values)


def _outline(part: PartFiles) -> CLIPTextModel:
    path, values = _sizes(part)
    check_sizes(values, path)
    folder = part.weights.parent
    try:
        stored = read_header(part.weights).below(part.prefix)
        with torch.device("meta"), _quiet():
            model = CLIPTextModel(CLIPTextConfig.from_dict(dict(values)))
    except (*DAMAGES, ModelFolderError) as error:
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP text model ({said_by(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    state = model.state_dict()
    names = text_names(stored)
    # Nobody wants to draw with random numbers in gaps, or without layers that the config forgot.
    missing = sorted(state.keys() - set(names.values()))
    surplus = sorted(name for name in names.values() if name not in state)
    if missing:
        raise ModelFolderError(
            f"{part.weights}: {len(missing)} tensors of the text model that {CONFIG} beside it "
            f"describes are missing ({_some(missing)}); copy both files again."
        )
    if surplus:
        raise ModelFolderError(
            f"{part.weights}: expected the tensors of the text model that {CONFIG} beside it "
            f"describes, found {len(surplus)} more ({_some(surplus)}); copy both files again."
        )
    for key, name in names.items():
        if stored[key].shape != tuple(state[name].shape):
            raise ModelFolderError(
                f"{folder} cannot be read as a CLIP text model ({key} should have the shape "
                f"{list(state[name].shape)} by {CONFIG}, found {list(stored[key].shape)}); "
                "copy both files again."
            )
    _number_places(model)
    model.eval()
    return model


def _number_places(model: CLIPTextModel) -> None:
    """The one buffer that is in no file: it is real from the start."""
    for module in model.modules():
        if "position_ids" in dict(module.named_buffers(recurse=False)):
            places = torch.arange(model.config.max_position_embeddings)[None]
            module.register_buffer("position_ids", places, persistent=False)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _part(stage: Literal["b", "c"]) -> Part:
    return "text_b" if stage == "b" else "text_c"


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
