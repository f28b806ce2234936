"""The files of each component of a model, so that a component can be opened alone, and again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import current_path, json_object, read_json
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import (
    CONFIG,
    PLACES,
    ComponentName,
    tokenizer_files,
    tokenizer_needs,
)
from wuerstchen.weights.shards import is_shard_index, shard_of_tensors

Naming = Literal["published", "original"]
"""published: the key names of diffusers; original: those of the authors' own files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentFiles:
    """One component: in its own folder, in its own file, or in a file with others."""

    component: ComponentName
    weights: Path
    """A safetensors file, or one that `torch.save` wrote."""
    config: Path | None = None
    """None: the config is in the file's metadata, or follows from the shapes."""
    tokenizer: Path | None = None
    """Folder of a text encoder's tokenizer; None for other components, or if it is in metadata."""
    naming: Naming = "published"
    prefix: str = ""
    """Prefix of all its keys, if the file contains other components too."""

    @property
    def title(self) -> str:
        return PLACES[self.component].title

    def config_values(self) -> dict[str, object] | None:
        """The contents of config.json; None if there is none and shapes must do.

        Raises ModelFolderError if it cannot be read.
        """
        if self.config is not None:
            return read_json(self.config)
        name = f"{PLACES[self.component].folder}/{CONFIG}"
        text = read_header(self.weights).metadata.get(name)
        where = f"{self.weights}: {name} in its metadata"
        return None if text is None else json_object(text, where)

    def missing(self) -> Path | None:
        """The first of its files that does not exist."""
        needed = [self.weights] if self.config is None else [self.config, self.weights]
        if self.tokenizer is not None:
            needed += tokenizer_needs(self.tokenizer)
        return next((path for path in needed if not path.is_file()), None)

    def paths(self) -> list[Path]:
        """All files that decide what it computes: config, weights or all shards, tokenizer."""
        sharded = is_shard_index(self.weights)
        shards = sorted(set(shard_of_tensors(self.weights).values())) if sharded else []
        config = [] if self.config is None else [self.config]
        tokenizer = [] if self.tokenizer is None else tokenizer_files(self.tokenizer)
        return [*config, self.weights, *shards, *tokenizer]

    @property
    def config_source(self) -> str:
        """Where its sizes come from, for messages."""
        return f"the {CONFIG} next to it" if self.config is not None else "its own header"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """The files of a whole model, whose components fit each other."""

    name: str
    """The name that the caller gave."""
    source: Path
    """The folder or file of its Stage B, which may have a wuerstchen.json and README.md."""
    stage_a: ComponentFiles
    stage_b: ComponentFiles
    stage_c: ComponentFiles
    text_b: ComponentFiles
    text_c: ComponentFiles
    compressor: ComponentFiles | None = None
    """Not needed for generating."""

    def components(self) -> Iterator[ComponentFiles]:
        yield from (self.stage_a, self.stage_b, self.stage_c, self.text_b, self.text_c)
        if self.compressor is not None:
            yield self.compressor


def component_in(folder: Path, component: ComponentName) -> ComponentFiles:
    """The files of a component in a model folder.

    Raises ModelFolderError if one is missing, and says how to train the component.
    """
    place = PLACES[component]
    if not folder.is_dir():
        raise ModelFolderError(f"Expected a model folder at {folder}, found none.")
    files = _files_in(folder, component)
    if missing := files.missing():
        started = any((folder / place.folder).glob("*"))
        raise ModelFolderError(
            f"{folder} lacks {place.title} (expected {missing}); "
            + ("the folder is incomplete: copy it again, or " if started else "")
            + f"train it with `wuerstchen train CONFIG --stage {place.trained_by}`."
        )
    return files


def has_component(folder: Path, component: ComponentName) -> bool:
    """Whether the model folder has all files of `component`; they are not opened."""
    return _files_in(folder, component).missing() is None


def _files_in(folder: Path, component: ComponentName) -> ComponentFiles:
    place = PLACES[component]
    own = current_path(folder / place.folder)
    return ComponentFiles(
        component=component,
        weights=own / place.weights,
        config=own / CONFIG,
        tokenizer=current_path(folder / place.tokenizer) if place.tokenizer else None,
    )


def files_in_metadata(metadata: Mapping[str, str], folder: str) -> dict[str, str]:
    """The files of `folder` that a single-file model has in its metadata, by name."""
    prefix = f"{folder}/"
    return {
        key.removeprefix(prefix): text for key, text in metadata.items() if key.startswith(prefix)
    }
