"""Read a config from a file and command-line overrides, and write it back."""

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
from wuerstchen.config.section import new_name
from wuerstchen.config.whole import Config
from wuerstchen.errors import ConfigError, os_errors_as
from wuerstchen.parsing import YAML, ParseError, parse_yaml, read_bytes

Location = tuple[int | str, ...]
"""The keys that lead to a value, and its index if it is in a list."""


@os_errors_as(ConfigError)
def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a config: `source` is a YAML file or the name of a shipped config (`tiny`).

    overrides  such as `data.path=images` or `stage_b.training.batch_size=16`

    Raises ConfigError for a missing file, an unknown key or an invalid value.
    """
    values = _read_yaml(_find(source), source)
    for override in overrides:
        _apply(override, values)
    return parse(values, source)


def load_data(overrides: Sequence[str]) -> DataConfig:
    """The data section alone, from overrides such as `data.path=images`; raises as `load` does."""
    values: dict[str, object] = {}
    for override in overrides:
        if not override.startswith("data."):
            example = "data.KEY=VALUE such as data.path=images"
            raise ConfigError(f"Expected {example}, found {override!r}.")
        _apply(override, values)
    try:
        return DataConfig.model_validate(values.get("data", {}))
    except ValidationError as error:
        raise ConfigError(_explain(error, "data")) from None


def load_prepare(preset: str | None, overrides: Sequence[str] = ()) -> PrepareConfig:
    """The config of `wuerstchen prepare`: an optional preset, then overrides such as `size=256`.

    Raises ConfigError as `load` does.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"Expected a preset of {', '.join(PRESETS)}, found {preset!r}.")
    values = {} if preset is None else copy.deepcopy(PRESETS[preset])
    for override in overrides:
        _apply(override, values, PrepareConfig)
    try:
        return PrepareConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, root=PrepareConfig)) from None


def parse(values: Mapping[str, object], source: str) -> Config:
    """Validate `values` as a `Config`; errors name `source`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from None


def dump(config: Config) -> str:
    """The resolved config as YAML, which reads back as an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the configs in the package."""
    folder = files("wuerstchen.configs")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _find(source: str) -> str | bytes:
    if Path(source).is_file():
        try:
            return read_bytes(Path(source), YAML.bytes)
        except (OSError, ParseError) as error:
            raise ConfigError(f"{source}: expected a YAML file, but {error}.") from None
    if source in shipped():
        return (files("wuerstchen.configs") / f"{source}.yaml").read_text(encoding="utf-8")
    raise ConfigError(
        f"Expected a YAML file or one of the shipped configs ({', '.join(shipped())}), "
        f"found neither at {source!r}."
    )


def _read_yaml(text: str | bytes, source: str) -> dict[str, object]:
    try:
        values = parse_yaml(text)
    except ParseError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected a table of keys, found {type(values).__name__}.")
    return values


def _apply(override: str, values: dict[str, object], root: type[BaseModel] = Config) -> None:
    """Set the key of an override such as `data.path=images` in `values`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        example = "data.path=images" if root is Config else "size=256"
        raise ConfigError(f"Expected KEY=VALUE such as {example}, found {override!r}.")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a section.")
        values = child
    values[last] = _value(text, _types([*parents, last], root))


def _value(text: str, types: Sequence[object]) -> object:
    """Parse as YAML, unless the key holds text: no character of a path is special."""
    if str in types:
        return None if text == "null" and type(None) in types else text
    try:
        return parse_yaml(text)
    except ParseError:
        return text


def _types(location: Sequence[str], root: type[BaseModel]) -> list[object]:
    """The types that a key accepts; empty for a key that does not exist."""
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
    type_ = field.annotation
    return list(get_args(type_)) if get_origin(type_) in (Union, UnionType) else [type_]


def _sections(annotation: object) -> list[type[BaseModel]]:
    types = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return [each for each in types if issubclass(each, BaseModel)]


def _explain(error: ValidationError, *section: str, root: type[BaseModel] = Config) -> str:
    """The first error that pydantic found in a section of the config, as one sentence."""
    found = error.errors()
    # An unknown key explains why another one is missing.
    first = next((each for each in found if each["type"] == "extra_forbidden"), None)
    if first is not None:
        location = (*section, *first["loc"])
        key = ".".join(str(part) for part in location)
        known = _known_keys(location[:-1], root)
        if new := new_name(str(location[-1]), known):
            return f"{key!r} was renamed to {'.'.join([*map(str, location[:-1]), new])!r}."
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}."
        return f"unknown key {key!r}; {hint}"
    location, first = _deepest([((*section, *each["loc"]), each) for each in found], root)
    key = ".".join(str(part) for part in location)
    if first["type"] == "value_error":
        message = str(first["msg"]).removeprefix("Value error, ") + "."
        # Messages about several sections already name their keys in full.
        return message if not key or f"{location[0]}." in message else f"{key}: {message}"
    if first["type"] == "model_type":
        return f"{key}: expected a table of keys, found {first['input']!r}."
    return f"{key}: {first['msg']}, found {first['input']!r}."


def _deepest(
    found: Sequence[tuple[Location, ErrorDetails]], root: type[BaseModel]
) -> tuple[Location, ErrorDetails]:
    """The first error, or the deepest one inside its value: each type of a union reports one."""
    placed = [(_without_types(location, root), error) for location, error in found]
    first, _ = placed[0]
    inside = [each for each in placed if each[0][: len(first)] == first]
    return max(inside, key=lambda each: len(each[0]))


def _without_types(location: Location, root: type[BaseModel]) -> Location:
    """Keys and list indices, without the type names that pydantic inserts between them."""
    sections: list[type[BaseModel]] = [root]
    kept: list[int | str] = []
    for part in location:
        if isinstance(part, int):
            kept.append(part)
        elif sections and (field := sections[0].model_fields.get(part)) is not None:
            kept.append(part)
            sections = _sections(field.annotation)
    return tuple(kept)


def _known_keys(location: Location, root: type[BaseModel]) -> list[str]:
    for part in location:
        (root,) = _sections(root.model_fields[str(part)].annotation)
    return list(root.model_fields)
