"""Which parts a folder or a file holds, in every layout that version 2 is kept in.

a model folder       vqgan decoder prior_prior text_encoder tokenizer prior_text_encoder …
a decoder            vqgan decoder text_encoder tokenizer, as on the hub
a prior              prior text_encoder tokenizer, as on the hub
a part               a folder with config.json and weights, such as a prior without its text
files                one or several files of weights, recognised by their keys
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import read_json, standing
from wuerstchen.weights.folder import INDEX
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.identify import (
    CASCADE_CLASSES,
    ForeignModelError,
    networks,
    refuse_foreign,
)
from wuerstchen.weights.layout import CONFIG, FOLDERS, PLACES, Part, has_vocabulary
from wuerstchen.weights.parts import PartFiles

Layout = Literal["model", "decoder", "prior", "part", "files"]

CLASSES: dict[str, Part] = {
    "PaellaVQModel": "stage_a",
    "WuerstchenDiffNeXt": "stage_b",
    "WuerstchenPrior": "stage_c",
    "WuerstchenStageC": "stage_c",
    "Compressor": "compressor",
    "EfficientNetEncoder": "compressor",
}
TEXT_MODELS = ("clip_text_model", "clip")
DECODER_CLASS, PRIOR_CLASS = "WuerstchenDecoderPipeline", "WuerstchenPriorPipeline"
NETWORK_PARTS: set[Part] = {"stage_a", "stage_b", "stage_c"}
WEIGHT_FILES = ("*.safetensors", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies at a path."""

    path: Path
    layout: Layout
    parts: dict[Part, PartFiles]

    @property
    def titles(self) -> str:
        """The names of its parts in a sentence."""
        return ", ".join(PLACES[part].title for part in self.parts) or "nothing of a model"


def survey(path: Path, variant: str | None = None) -> Survey:
    """Look at names, configs and keys; no weight is read.

    variant  the word in the names of the weights, such as fp16: NAME.fp16.safetensors

    Raises ModelFolderError for other generations, and where the variant is missing.
    """
    if path.is_file():
        return Survey(path, "files", _in_file(path))
    _refuse_cascade(path)
    if (part := part_of_folder(path)) is not None:
        return Survey(path, "part", {part: _component(path, part, tokenizer_of(path), variant)})
    layout, folders = _layout(path)
    parts = {
        part: _component(standing(path / folder), part, path / tokenizer, variant)
        for part, folder, tokenizer in folders
        if standing(path / folder).is_dir()
    }
    loose = {} if parts.keys() >= NETWORK_PARTS else _loose(path)
    if loose.keys() - parts.keys():
        return Survey(path, "files", loose | parts)
    return Survey(path, layout, parts)


def part_of_folder(folder: Path) -> Part | None:
    """What the config.json in the folder describes; text encoders by the folder's name."""
    if not (folder / CONFIG).is_file():
        return None
    values = read_json(folder / CONFIG)
    if (named := values.get("_class_name")) in CASCADE_CLASSES:
        raise ForeignModelError(folder / CONFIG, f"a {named}", "v3")
    if values.get("model_type") in TEXT_MODELS:
        return "text_b" if FOLDERS.get(folder.resolve().name) == "text_b" else "text_c"
    if isinstance(named, str) and named in CLASSES:
        return CLASSES[named]
    return "compressor" if {"c_latent", "effnet"} & values.keys() else None


def tokenizer_of(folder: Path) -> Path:
    """Where the tokenizer of the text encoder in `folder` is: there, or in the folder beside it."""
    if has_vocabulary(folder):
        return folder
    part = FOLDERS.get(folder.resolve().name, "text_b")
    return folder.resolve().parent / (PLACES[part].tokenizer or "tokenizer")


def as_part(path: Path, part: Part, variant: str | None = None) -> PartFiles:
    """`part` in any folder or file that holds it; raises ModelFolderError where none does."""
    if not path.exists():
        raise ModelFolderError(f"Expected {PLACES[part].title} at {path}, found no such path.")
    found = survey(path, variant)
    if found.layout == "part" and part in ("text_b", "text_c"):
        # A text encoder alone does not know for which stage it is.
        [(kind, alone)] = found.parts.items()
        if kind in ("text_b", "text_c"):
            return replace(alone, part=part)
    if part not in found.parts:
        raise ModelFolderError(
            f"{path}: expected {PLACES[part].title}, found {found.titles}; name another path."
        )
    return found.parts[part]


def _loose(path: Path) -> dict[Part, PartFiles]:
    """What the files directly in a folder hold, which may have any names."""
    loose: dict[Part, PartFiles] = {}
    for pattern in WEIGHT_FILES:
        for file in sorted(path.glob(pattern)):
            for part, found in _in_file(file).items():
                if part in loose:
                    raise ModelFolderError(
                        f"{path} holds {PLACES[part].title} twice, in {loose[part].weights.name} "
                        f"and {file.name}; name one of the files."
                    )
                loose[part] = found
    return loose


def _layout(path: Path) -> tuple[Layout, list[tuple[Part, str, str]]]:
    """Which one it is, and part, folder and tokenizer's folder of each that it may hold."""
    places = [(part, place.folder, place.tokenizer) for part, place in PLACES.items()]
    if (path / "prior").is_dir() and not (path / "prior_prior").is_dir():
        text: tuple[Part, str, str] = ("text_c", "text_encoder", "tokenizer")
        return "prior", [("stage_c", "prior", ""), text]
    lacks_prior = not any(
        standing(path / f).is_dir() for f in ("prior_prior", "prior_text_encoder")
    )
    whole = ("vqgan", "decoder", "text_encoder", "tokenizer")
    if lacks_prior and all((path / folder).is_dir() for folder in whole):
        return "decoder", places
    if _index_class(path) == DECODER_CLASS:
        return "decoder", places
    return "model", places


def _index_class(path: Path) -> object:
    return read_json(path / INDEX).get("_class_name") if (path / INDEX).is_file() else None


def _refuse_cascade(path: Path) -> None:
    if _index_class(path) in CASCADE_CLASSES:
        raise ForeignModelError(path, "a model", "v3")


def _component(folder: Path, part: Part, tokenizer: Path, variant: str | None) -> PartFiles:
    return PartFiles(
        part=part,
        weights=_weights(folder, part, variant),
        config=folder / CONFIG,
        tokenizer=standing(tokenizer) if PLACES[part].tokenizer else None,
    )


def _weights(folder: Path, part: Part, variant: str | None) -> Path:
    usual = PLACES[part].weights
    names = dict.fromkeys((usual, "diffusion_pytorch_model.safetensors", "model.safetensors"))
    stems = [name.removesuffix(".safetensors") for name in names]
    words = f".{variant}" if variant else ""
    for stem in stems:
        if (path := folder / f"{stem}{words}.safetensors").is_file():
            return path
        if (folder / f"{stem}.safetensors.index{words}.json").is_file():
            raise ModelFolderError(
                f"{folder} has its weights in several files, which cannot be opened; "
                f"join them in one {stem}{words}.safetensors."
            )
    variants = [
        path.name.removesuffix(".safetensors").removeprefix(f"{stem}.")
        for stem in stems
        for path in sorted(folder.glob(f"{stem}.*.safetensors"))
    ]
    if variant and part != "compressor":
        plain = "the one without a word" if (folder / usual).is_file() else ""
        known = ", ".join(filter(None, [plain, *variants])) or "none"
        raise ModelFolderError(
            f"{folder}: expected the variant {variant!r} ({stems[0]}{words}.safetensors), found "
            f"{known}; ask for a variant that all parts have."
        )
    if variants:
        raise ModelFolderError(
            f"{folder}: expected {usual}, found only the variants {', '.join(variants)}; "
            f"pass variant={variants[0]!r} (--variant {variants[0]})."
        )
    if variant:  # the compressor comes from elsewhere, in one kind of numbers
        return _weights(folder, part, None)
    return folder / usual


def _in_file(path: Path) -> dict[Part, PartFiles]:
    found = networks(read_header(path))
    for network in found.values():
        refuse_foreign(network, path)
    return {part: network.files(path) for part, network in found.items()}
