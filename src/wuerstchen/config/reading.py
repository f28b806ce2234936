"""A config from a file and the words of a command line, and back into a file."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wuerstchen.config.data import DataConfig
from wuerstchen.config.prepare import PRESETS, PrepareConfig
from wuerstchen.config.renamed import RENAMED
from wuerstchen.config.whole import Config
from wuerstchen.errors import ConfigError

Location = tuple[int | str, ...]
"""The keys that lead to a value, and its place where it is one of a list."""


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a config: `source` is a YAML file or the name of a shipped config (`tiny`).

    overrides  words such as `data.path=images` or `stage_b.training.batch_size=16`

    Raises ConfigError for a file that is not there, an unknown key or a value that cannot work.
    """
    values = _read_yaml(_find(source))
    for word in overrides:
        _override(values, word)
    return parse(values, source)


def load_data(words: Sequence[str]) -> DataConfig:
    """The data section alone, from words such as `data.path=images`; ConfigError as in `load`."""
    values: dict[str, object] = {}
    for word in words:
        if not word.startswith("data."):
            raise ConfigError(f"Expected data.KEY=VALUE such as data.path=images, found {word!r}.")
        _override(values, word)
    try:
        return DataConfig.model_validate(values.get("data", {}))
    except ValidationError as error:
        raise ConfigError(_explain(error, "data")) from None


def load_prepare(preset: str | None, words: Sequence[str] = ()) -> PrepareConfig:
    """The keys of `wuerstchen prepare`: a preset, if one is named, and words such as `size=256`.

    Raises ConfigError as `load` does.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"Expected a preset of {', '.join(PRESETS)}, found {preset!r}.")
    values = copy.deepcopy(PRESETS[preset]) if preset is not None else {}
    for word in words:
        _override(values, word, PrepareConfig)
    try:
        return PrepareConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, root=PrepareConfig)) from None


def parse(values: Mapping[str, object], source: str) -> Config:
    """Check `values` and make them a `Config`; `source` is named in errors."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from None


def dump(config: Config) -> str:
    """The resolved config as YAML: reading it again gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the configs that come with the package."""
    folder = files("wuerstchen.configs")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _find(source: str) -> str:
    if Path(source).is_file():
        try:
            return Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: expected a YAML file, but {error}.") from None
    if source in shipped():
        return (files("wuerstchen.configs") / f"{source}.yaml").read_text(encoding="utf-8")
    raise ConfigError(
        f"Expected a YAML file or one of the shipped configs ({', '.join(shipped())}), "
        f"found neither at {source!r}."
    )


def _read_yaml(text: str) -> dict[str, object]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise ConfigError(f"The config is not valid YAML: {what}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"A config must be a table of keys, found {type(values).__name__}.")
    return values


def _override(values: dict[str, object], word: str, root: type[BaseModel] = Config) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        such_as = "data.path=images" if root is Config else "size=256"
        raise ConfigError(f"Expected KEY=VALUE such as {such_as}, found {word!r}.")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {parent} is a value and not a section.")
        values = child
    values[last] = _value(text, _kinds([*parents, last], root))


def _value(text: str, kinds: Sequence[object]) -> object:
    """What a word says: text where the key holds text, so that no letter in a path is special."""
    if str in kinds:
        return None if text == "null" and type(None) in kinds else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _kinds(location: Sequence[str], root: type[BaseModel]) -> list[object]:
    """The types that the value of a key may have; none for a key that does not exist."""
    *parents, last = location
    section = root
    for part in parents:
        field = section.model_fields.get(part)
        if field is None or not (sections := _sections(field.annotation)):
            return []
        section = sections[0]
    field = section.model_fields.get(last)
    if field is None:
        return []
    kind = field.annotation
    return list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]


def _sections(annotation: object) -> list[type[BaseModel]]:
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, BaseModel)]


def _explain(error: ValidationError, *section: str, root: type[BaseModel] = Config) -> str:
    """The first thing that pydantic found in a section of the config, as one sentence."""
    found = error.errors()
    # A key that is unknown explains why another one is missing.
    first = next((each for each in found if each["type"] == "extra_forbidden"), None)
    if first is not None:
        location = (*section, *first["loc"])
        key = ".".join(str(part) for part in location)
        known = _known_keys(location[:-1], root)
        new = RENAMED.get(str(location[-1]))
        if new in known:
            return f"{key!r} is now called {'.'.join([*map(str, location[:-1]), new])!r}."
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}."
        return f"unknown key {key!r}; {hint}"
    location, first = _deepest([((*section, *each["loc"]), each) for each in found], root)
    key = ".".join(str(part) for part in location)
    if first["type"] == "value_error":
        words = str(first["msg"]).removeprefix("Value error, ") + "."
        # Sentences about several sections name their keys in full; others only what is in theirs.
        return words if not key or f"{location[0]}." in words else f"{key}: {words}"
    if first["type"] == "model_type":
        return f"{key}: expected a table of keys, found {first['input']!r}."
    return f"{key}: {first['msg']}, found {first['input']!r}."


def _deepest(
    found: Sequence[tuple[Location, ErrorDetails]], root: type[BaseModel]
) -> tuple[Location, ErrorDetails]:
    """The first error, or one inside its value: of a key with several types each type complains."""
    placed = [(_without_types(location, root), error) for location, error in found]
    first, _ = placed[0]
    return max(
        (each for each in placed if each[0][: len(first)] == first), key=lambda each: len(each[0])
    )


def _without_types(location: Location, root: type[BaseModel]) -> Location:
    """Keys and places in lists, without the names of types that pydantic puts between them."""
    sections: list[type[BaseModel]] = [root]
    kept: list[int | str] = []
    for part in location:
        if isinstance(part, int):
            kept.append(part)
        elif sections and (field := sections[0].model_fields.get(part)) is not None:
            kept.append(part)
            sections = _sections(field.annotation)
    return tuple(kept)


def _known_keys(location: Sequence[int | str], root: type[BaseModel]) -> list[str]:
    section = root
    for part in location:
        (section,) = _sections(section.model_fields[str(part)].annotation)
    return list(section.model_fields)
