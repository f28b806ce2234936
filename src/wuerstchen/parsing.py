"""JSON and YAML from outside, parsed within limits of bytes, depth, values and digits.

Nothing is built before the text is known to be within the limits, so that a file of a few bytes
cannot fill the memory. Every reader of JSON or YAML uses this module.
"""

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class ParseError(ValueError):
    """The text is not JSON or YAML, or exceeds a limit; the message is the reason as a clause."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a text may contain."""

    bytes: int
    values: int
    depth: int = 64
    digits: int = 300
    """Of an integer; `float` overflows beyond 308."""
    finite: bool = True
    """Whether NaN and infinity are refused, which are not JSON but which pandas writes."""
    surrogates: bool = False
    """Whether lone surrogates are left in strings, which UTF-8 cannot encode."""


JSON = Limits(bytes=64 << 20, values=2_000_000)
"""A tokenizer of a large vocabulary has 20 MB and some 500,000 values."""

OWN = Limits(bytes=1 << 30, values=20_000_000)
"""Reports of this package, which name every image that was skipped."""

RECORD = Limits(bytes=16 << 20, values=100_000, finite=False, surrogates=True)
"""Metadata of one image, from any tool."""

YAML = Limits(bytes=1 << 20, values=20_000)

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""An unterminated one ends with the text: if it did not match, each quote in it would be tried in
turn, to the end of the text."""

_NOT_BRACKETS = re.compile(r"[^][{}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONSTRUCTION = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""What PyYAML raises for invalid dates, numbers and tags, in addition to its own errors."""


def parse_json(data: bytes | str, limits: Limits = JSON) -> object:
    """Parse JSON in UTF-8, 16 or 32, with or without a byte order mark; raises ParseError."""
    text = _checked_json(data, limits)
    try:
        values: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=lambda digits: _integer(digits, limits),
            parse_float=lambda number: _number(float(number), limits),
            parse_constant=lambda name: _number(float(name), limits),
        )
    except (RecursionError, MemoryError):
        raise ParseError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ParseError(f"{error.msg} in line {error.lineno}, column {error.colno}") from None
    if not limits.surrogates and "\\u" in text:
        _check_strings(values)
    return values


def parse_object(data: bytes | str, limits: Limits = JSON) -> dict[str, object]:
    """Parse a JSON object; raises ParseError."""
    values = parse_json(data, limits)
    if not isinstance(values, dict):
        raise ParseError(f"it is not a JSON object but {type(values).__name__}")
    return values


def parse_model(model: type[Model], data: bytes | str, limits: Limits = JSON) -> Model:
    """Parse JSON as a pydantic model; raises ParseError."""
    parse_object(data, limits)
    try:
        return model.model_validate_json(_decoded(data))
    except ValidationError as error:
        raise ParseError(first_problem(error)) from None


def first_problem(error: ValidationError, whole: str = "the file") -> str:
    """Key and reason of the first error, `whole` where it has no key."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


def parse_yaml(data: bytes | str, limits: Limits = YAML) -> object:
    """Parse YAML with plain values only; raises ParseError."""
    text = _decoded(data)
    _check_size(len(text), limits)
    try:
        loader = _Loader(text, limits)
        try:
            values: object = loader.get_single_data()
        finally:
            loader.dispose()
    except ParseError:
        raise
    except yaml.YAMLError as error:
        raise ParseError(" ".join(str(error).split())) from None
    except (RecursionError, MemoryError):
        raise ParseError("it is nested too deeply") from None
    except _CONSTRUCTION as error:
        raise ParseError(f"it has a value that is not valid YAML ({error})") from None
    _check_strings(values)
    return values


def read_bytes(path: Path, limit: int = JSON.bytes) -> bytes:
    """The contents of a regular file; raises OSError, and ParseError for a larger one."""
    size = check_regular(path)
    with path.open("rb") as file:
        data = file.read(min(limit, size) + 1)  # `read` allocates what is asked for
    if len(data) > limit:
        raise ParseError(f"it has over {limit:,} bytes")
    return data


def check_regular(path: Path) -> int:
    """The bytes of a regular file; raises OSError for others: opening a pipe would block forever,
    and reading some devices would never end."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def _decoded(data: bytes | str) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode(json.detect_encoding(data)).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ParseError("it is not UTF-8 text") from None


def _checked_json(data: bytes | str, limits: Limits) -> str:
    """The text, once its size, its number of values and its depth are within the limits."""
    _check_size(len(data), limits)
    text = _decoded(data)
    brackets = text.count("[") + text.count("{")
    if brackets <= limits.depth and brackets + text.count(",") <= limits.values:
        return text
    bare = _STRING.sub("", text)
    if bare.count("[") + bare.count("{") + bare.count(",") > limits.values:
        raise ParseError(f"it has over {limits.values:,} values")
    depth = 0
    for bracket in _NOT_BRACKETS.sub("", bare):
        depth += 1 if bracket in "[{" else -1
        if depth > limits.depth:
            raise ParseError(f"it is nested more than {limits.depth} levels deep")
    return text


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.bytes:
        raise ParseError(f"it has over {limits.bytes:,} bytes")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        for key, value in pairs:
            if values[key] != value:
                raise ParseError(f"it has the key {key!r} twice, with different values")
    return values


def _integer(digits: str, limits: Limits) -> int:
    if len(digits) > limits.digits:
        raise ParseError(f"it has an integer of {len(digits):,} digits")
    return int(digits)


def _number(value: float, limits: Limits) -> float:
    if limits.finite and not math.isfinite(value):
        raise ParseError(f"it has a number that is not finite ({value})")
    return value


def _check_strings(values: object) -> None:
    for text in _strings(values):
        if _SURROGATE.search(text):
            raise ParseError("it has text that is not Unicode (a lone surrogate)")


def _strings(values: object) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _strings(key)
            yield from _strings(value)
    elif isinstance(values, list):
        for value in values:
            yield from _strings(value)


class _Loader(yaml.SafeLoader):
    """Counts values while it reads; an alias counts as everything that it stands for."""

    def __init__(self, text: str, limits: Limits) -> None:
        super().__init__(text)
        self._limits = limits
        self._values = self._depth = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor: str | None = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent) and anchor in self.anchors:
            if anchor not in self._sizes:
                raise ParseError(f"it has an alias inside its own anchor ({anchor})")
            self._count(self._sizes[anchor])
            return super().compose_node(parent, index)
        before = self._values
        self._count(1)
        self._depth += 1
        if self._depth > self._limits.depth:
            raise ParseError(f"it is nested more than {self._limits.depth} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._sizes[anchor] = self._values - before
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in keys:
                line = key.start_mark.line + 1
                raise ParseError(f"it has the key {key.value!r} twice, again in line {line}")
            keys.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > self._limits.digits:
            raise ParseError(f"it has an integer of {len(node.value):,} digits")
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return _number(super().construct_yaml_float(node), self._limits)

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > self._limits.values:
            raise ParseError(f"it has over {self._limits.values:,} values")


for _tag, _constructor in (
    ("int", _Loader.construct_yaml_int),
    ("float", _Loader.construct_yaml_float),
):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _constructor)
