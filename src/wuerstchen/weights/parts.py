"""Where the parts of a model are, so that each can be opened alone, and again."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import read_json
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import CONFIG, PLACES, Part

Naming = Literal["published", "original"]
"""published: the key names of diffusers; original: those of the authors' own files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFiles:
    """One part: a folder of its own, a file of its own, or a share of a larger file."""

    part: Part
    weights: Path
    """A safetensors file, or one of `torch.save`."""
    config: Path | None = None
    """None: the file's metadata holds it, or it follows from the shapes."""
    tokenizer: Path | None = None
    """Folder of a text encoder's tokenizer; None for other parts, and where it is in metadata."""
    naming: Naming = "published"
    prefix: str = ""
    """What all its keys begin with, where the file holds other parts too."""

    @property
    def title(self) -> str:
        return PLACES[self.part].title

    def config_values(self) -> dict[str, object] | None:
        """What config.json says; None where there is none and shapes have to tell.

        Raises ModelFolderError where it cannot be read.
        """
        if self.config is not None:
            return read_json(self.config)
        name = f"{PLACES[self.part].folder}/{CONFIG}"
        text = read_header(self.weights).metadata.get(name)
        return None if text is None else metadata_table(self.weights, name, text)

    @property
    def described_by(self) -> str:
        """The words for where its sizes come from."""
        return f"the {CONFIG} beside it" if self.config is not None else "its own header"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """All parts of one model, which fit each other."""

    name: str
    """What the caller named it by."""
    source: Path
    """The folder or file of its Stage B, where wuerstchen.json and README.md are if it has them."""
    stage_a: PartFiles
    stage_b: PartFiles
    stage_c: PartFiles
    text_b: PartFiles
    text_c: PartFiles
    compressor: PartFiles | None = None
    """Drawing does without."""

    def parts(self) -> Iterator[PartFiles]:
        yield from (self.stage_a, self.stage_b, self.stage_c, self.text_b, self.text_c)
        if self.compressor is not None:
            yield self.compressor


def folder_part(folder: Path, part: Part, weights: Path | None = None) -> PartFiles:
    """A part in the component folder `folder`; nothing is looked at."""
    return PartFiles(
        part=part, weights=weights or folder / PLACES[part].weights, config=folder / CONFIG
    )


def metadata_table(path: Path, name: str, text: str) -> dict[str, object]:
    """A JSON text of a file's metadata; raises ModelFolderError unless it is a table."""
    try:
        values: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: its {name} cannot be read as JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ModelFolderError(
            f"{path}: expected a table as its {name}, found {type(values).__name__}."
        )
    return values


def texts_below(metadata: Mapping[str, str], folder: str) -> dict[str, str]:
    """The files of `folder` that the metadata of a single-file model holds, by their names."""
    start = f"{folder}/"
    return {
        key.removeprefix(start): text for key, text in metadata.items() if key.startswith(start)
    }
