"""Text encoders: CLIP text models and tokenizers, as `transformers` reads and writes them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as brief
from typing import final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.activations import ACT2FN
from transformers.utils import logging

from wuerstchen.errors import ModelFolderError
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights.component import Component, check_blocks, check_keys, check_stored
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.files import replacing, write_tensors
from wuerstchen.weights.headers import TensorInfo, read_header
from wuerstchen.weights.layout import CONFIG, PLACES
from wuerstchen.weights.names import text_names
from wuerstchen.weights.tokenizer import first_line, is_int, load_tokenizer

WEIGHTS = "model.safetensors"

SIZES = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)

KEYS = (
    *SIZES,
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "hidden_act",
    "initializer_factor",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "projection_dim",
)
"""The keys of a config that describe a text model. transformers acts on others too, such as
num_labels, for which it makes that many names, and return_dict."""

DAMAGED = (
    AttributeError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What `transformers` raises for a text model whose config or files are damaged."""


@final
class TextComponent(Component[TextEncoder, CLIPTextConfig]):
    """The text encoder of a stage, with its tokenizer."""

    def config(self, files: ComponentFiles) -> CLIPTextConfig:
        path, values = _config_values(files)
        try:
            return CLIPTextConfig.from_dict({key: values[key] for key in KEYS if key in values})
        except DAMAGED as error:
            raise ModelFolderError(
                f"{path} cannot be read as the config of a CLIP text model ({first_line(error)})."
            ) from None

    def empty(self, files: ComponentFiles) -> TextEncoder:
        model = _empty_model(files)
        tokenizer = load_tokenizer(files)
        where = files.tokenizer or files.weights
        limit, length = model.config.max_position_embeddings, tokenizer.model_max_length
        if length > limit:
            raise ModelFolderError(
                f"{where} makes up to {length} tokens per caption, but the text encoder in "
                f"{files.weights.parent} reads {limit}; use the tokenizer that it was trained with."
            )
        largest = max(tokenizer.get_vocab().values())
        if largest >= model.config.vocab_size:
            raise ModelFolderError(
                f"{where} has a token {largest}, but the text encoder in {files.weights.parent} "
                f"has only {model.config.vocab_size}; use the tokenizer that it was trained with."
            )
        return TextEncoder(model, tokenizer).eval()

    def save(self, folder: Path, network: TextEncoder, dtype: torch.dtype = torch.float32) -> None:
        place = PLACES[self.name]
        targets = (folder / place.folder, folder / place.tokenizer)
        with replacing(*targets) as (model, tokenizer), _quiet():
            network.model.save_pretrained(model)
            # Overwritten, so that the config still states fp32, in which it is to be used.
            write_tensors(model / WEIGHTS, dict(network.model.state_dict()), dtype)
            network.tokenizer.save_pretrained(tokenizer)


def load_clip_text(model_folder: Path, tokenizer_folder: Path) -> TextEncoder:
    """Load a CLIP text model and a tokenizer from any two folders, such as published ones.

    Raises ModelFolderError where a file is missing or damaged, or the two do not fit together.
    """
    files = ComponentFiles(
        component="text_c",
        weights=model_folder / WEIGHTS,
        config=model_folder / CONFIG,
        tokenizer=tokenizer_folder,
    )
    return TextComponent("text_c").load(files)


def _config_values(files: ComponentFiles) -> tuple[Path, Mapping[str, object]]:
    """The text model's section of the config, checked, and where it was read."""
    values = files.config_values()
    if values is None:
        raise ModelFolderError(
            f"{files.weights}: a text encoder needs its {CONFIG}; use a folder that has it."
        )
    path, nested = files.config or files.weights, values.get("text_config")
    section = nested if isinstance(nested, dict) else values  # a whole CLIP nests it
    _check_config(section, path)
    return path, section


def _check_config(values: Mapping[str, object], path: Path) -> None:
    """Check the values that shape the text model; transformers has defaults for absent ones."""
    for key in SIZES:
        if not is_int(value := values.get(key, 1), 1):
            raise ModelFolderError(
                f"{path}: {key} should be a positive integer, found {brief(value)}."
            )
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        raise ModelFolderError(
            f"{path}: hidden_size {width} should be a multiple of num_attention_heads {heads}."
        )
    for key in ("bos_token_id", "eos_token_id"):
        if not isinstance(value := values.get(key, 0), int):
            raise ModelFolderError(f"{path}: {key} should be an integer, found {brief(value)}.")
    dropout = values.get("attention_dropout", 0)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ModelFolderError(
            f"{path}: attention_dropout should be at least 0 and below 1, found {brief(dropout)}."
        )
    epsilon = values.get("layer_norm_eps", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ModelFolderError(
            f"{path}: layer_norm_eps should be a number between 0 and 1, found {brief(epsilon)}."
        )
    activation = values.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACT2FN:
        raise ModelFolderError(
            f"{path}: hidden_act should be an activation that transformers knows, such as "
            f"quick_gelu or gelu, found {brief(activation)}."
        )


def _empty_model(files: ComponentFiles) -> CLIPTextModel:
    config = TextComponent(files.component).config(files)
    stored = read_header(files.weights).below(files.prefix)
    check_blocks(files, config.num_hidden_layers, stored)
    folder = files.weights.parent
    try:
        with torch.device("meta"), _quiet():
            model = CLIPTextModel(config)
    except DAMAGED as error:
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP text model ({first_line(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    _check_tensors(files, stored, model.state_dict())
    for module in model.modules():  # the one buffer that is in no file is real from the start
        if "position_ids" in dict(module.named_buffers(recurse=False)):
            positions = torch.arange(model.config.max_position_embeddings)[None]
            module.register_buffer("position_ids", positions, persistent=False)
    return model


def _check_tensors(
    files: ComponentFiles, stored: Mapping[str, TensorInfo], state: Mapping[str, Tensor]
) -> None:
    names = text_names(stored)
    # transformers would fill gaps with random weights and ignore layers that the config lacks.
    check_keys(files, state, names.values())
    for key, name in names.items():
        check_stored(files, key, stored[key], state[name])
        if stored[key].shape != tuple(state[name].shape):
            raise ModelFolderError(
                f"{files.weights.parent} cannot be read as a CLIP text model ({key} should have "
                f"the shape {list(state[name].shape)} by {CONFIG}, found "
                f"{list(stored[key].shape)}); copy both files again."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and reports of transformers; problems are raised."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
