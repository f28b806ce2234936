"""The layout of a model folder: which folder contains which component."""

from pathlib import Path
from typing import Literal, NamedTuple

ComponentName = Literal["stage_a", "compressor", "stage_b", "stage_c", "text_b", "text_c"]


class Place(NamedTuple):
    """The place of a component in a model folder."""

    title: str
    folder: str
    trained_by: Literal["a", "b", "c"]
    """The stage whose training writes it."""
    tokenizer: str = ""
    """The second folder of a text encoder."""
    weights: str = "model.safetensors"


CONFIG = "config.json"
PLACES: dict[ComponentName, Place] = {
    "stage_a": Place("Stage A", "vqgan", "a", weights="diffusion_pytorch_model.safetensors"),
    "compressor": Place("the compressor", "compressor", "b"),
    "stage_b": Place("Stage B", "decoder", "b", weights="diffusion_pytorch_model.safetensors"),
    "stage_c": Place("Stage C", "prior_prior", "c", weights="diffusion_pytorch_model.safetensors"),
    "text_b": Place("the text encoder of Stage B", "text_encoder", "c", "tokenizer"),
    "text_c": Place("the text encoder of Stage C", "prior_text_encoder", "c", "prior_tokenizer"),
}
FOLDERS: dict[str, ComponentName] = {place.folder: name for name, place in PLACES.items()}
"""Component folders; in a single-file model, the prefixes of its keys."""
REQUIRED: tuple[ComponentName, ...] = ("stage_a", "stage_b", "stage_c", "text_b", "text_c")
"""The components that generating needs; only training and image inputs need the compressor."""

WRAPPERS = (
    "ema_state_dict",
    "effnet_state_dict",
    "state_dict",
    "module",
    "model",
    "diffusion_model",
)
"""Prefixes that checkpoints put before the keys of a network."""

TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY = "tokenizer.json"
OLDER_VOCABULARY = ("vocab.json", "merges.txt")
"""Published tokenizers have these instead of, or next to, tokenizer.json."""

TOKENIZER_FILES = (
    *(VOCABULARY, *OLDER_VOCABULARY, TOKENIZER_CONFIG),
    *("special_tokens_map.json", "added_tokens.json"),
)
"""All that transformers reads of a tokenizer."""


def prefix_of(key: str) -> str:
    """The prefix of a tensor's name in a checkpoint or a file of several networks."""
    rest = key
    while (word := rest.partition(".")[0]) in WRAPPERS or word in FOLDERS:
        rest = rest.removeprefix(f"{word}.")
    return key.removesuffix(rest)


def tokenizer_needs(tokenizer: Path) -> list[Path]:
    """The files without which the folder has no tokenizer."""
    vocabulary = [] if has_vocabulary(tokenizer) else [tokenizer / VOCABULARY]
    return [tokenizer / TOKENIZER_CONFIG, *vocabulary]


def tokenizer_files(tokenizer: Path) -> list[Path]:
    """The files of a tokenizer that are in its folder."""
    return [path for name in TOKENIZER_FILES if (path := tokenizer / name).is_file()]


def has_vocabulary(tokenizer: Path) -> bool:
    """Whether the folder has a tokenizer's vocabulary; transformers invents one if it is absent."""
    older = all((tokenizer / name).is_file() for name in OLDER_VOCABULARY)
    return older or (tokenizer / VOCABULARY).is_file()
