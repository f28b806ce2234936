"""Which folder holds which part, and how a missing one is explained."""

from pathlib import Path
from typing import Literal, NamedTuple

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import standing

Part = Literal["stage_a", "compressor", "stage_b", "stage_c", "text_b", "text_c"]


class Place(NamedTuple):
    """Where a part lives in a model folder."""

    title: str
    folder: str
    weights: str
    trained_by: Literal["a", "b", "c"]
    """The stage whose training writes it."""
    tokenizer: str = ""
    """The second folder of a text encoder."""


CONFIG = "config.json"
PLACES: dict[Part, Place] = {
    "stage_a": Place("Stage A", "vqgan", "diffusion_pytorch_model.safetensors", "a"),
    "compressor": Place("the compressor", "compressor", "model.safetensors", "b"),
    "stage_b": Place("Stage B", "decoder", "diffusion_pytorch_model.safetensors", "b"),
    "stage_c": Place("Stage C", "prior_prior", "diffusion_pytorch_model.safetensors", "c"),
    "text_b": Place(
        "the text encoder of Stage B", "text_encoder", "model.safetensors", "c", "tokenizer"
    ),
    "text_c": Place(
        "the text encoder of Stage C",
        "prior_text_encoder",
        "model.safetensors",
        "c",
        "prior_tokenizer",
    ),
}

WRAPPERS = (
    "ema_state_dict",
    "effnet_state_dict",
    "state_dict",
    "module",
    "model",
    "diffusion_model",
)
"""Words that checkpoints put before the keys of a network."""
FOLDERS: dict[str, Part] = {place.folder: part for part, place in PLACES.items()}
"""The same in a model that is one file."""

TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY = "tokenizer.json"
OLDER_VOCABULARY = ("vocab.json", "merges.txt")
"""What published tokenizers have in its place, or beside it."""


def prefix_of(key: str) -> str:
    """What stands before the name of a tensor in a file that holds more than one network."""
    rest = key
    while (word := rest.partition(".")[0]) in WRAPPERS or word in FOLDERS:
        rest = rest.removeprefix(f"{word}.")
    return key.removesuffix(rest)


def has_part(folder: Path, part: Part) -> bool:
    """Whether the model folder holds `part`; its files are there, but they are not opened."""
    return not _absent(folder, part)


def has_vocabulary(tokenizer: Path) -> bool:
    """Whether the folder holds a tokenizer's vocabulary; without, transformers makes one up."""
    older = all((tokenizer / name).is_file() for name in OLDER_VOCABULARY)
    return older or (tokenizer / VOCABULARY).is_file()


def need_part(folder: Path, part: Part) -> Path:
    """The folder of `part`; raises ModelFolderError where a file of it is missing."""
    place = PLACES[part]
    absent = _absent(folder, part)
    if not folder.is_dir():
        raise ModelFolderError(f"Expected a model folder at {folder}, found none.")
    if absent:
        begun = any((folder / place.folder).glob("*"))
        raise ModelFolderError(
            f"{folder} lacks {place.title} (expected {absent[0]}); "
            + ("what is there is half of it, copy it again, or " if begun else "")
            + f"train it with `wuerstchen train CONFIG --stage {place.trained_by}`."
        )
    return standing(folder / place.folder)


def _absent(folder: Path, part: Part) -> list[Path]:
    place = PLACES[part]
    needed = [standing(folder / place.folder) / name for name in (CONFIG, place.weights)]
    if place.tokenizer:
        tokenizer = standing(folder / place.tokenizer)
        needed.append(tokenizer / TOKENIZER_CONFIG)
        if not has_vocabulary(tokenizer):
            needed.append(tokenizer / VOCABULARY)
    return [path for path in needed if not path.is_file()]
