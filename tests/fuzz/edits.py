"""Damage to files: flipped bytes, cuts, splices, untrue numbers, and other values in JSON."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

Strategy = st.SearchStrategy[bytes]

_NUMBERS = (-1, 0, 1, 255, 2**31 - 1, 2**32, 2**63 - 1, 2**63, 10**14, -(10**30))
_WORDS = (
    *(b"\0", b"\x1b[31m", b"\r\n", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800"),
    *(b"NaN", b"Infinity", b"1e999", b"9" * 400, b"null", b"{}", b"[]", b'""', b"-"),
    *(b"[" * 300, b'{"a":' * 300, b"&a [*a]", b"<<: *a", b"!!python/object:os.system", b"../.."),
    *(b"A" * 300, "\u202e\u2028".encode(), b"__proto__", b"\\u0000"),
)
_DECIMAL = re.compile(rb"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Edit:
    """One change, at a fraction of the file; `other` and `number` select what is put there."""

    kind: str
    at: int
    other: int
    number: int


_KINDS: dict[str, Callable[[bytes, Edit, Sequence[bytes]], bytes]] = {}


def _kind(
    change: Callable[[bytes, Edit, Sequence[bytes]], bytes],
) -> Callable[[bytes, Edit, Sequence[bytes]], bytes]:
    _KINDS[change.__name__] = change
    return change


def _place(data: bytes, fraction: int) -> int:
    return fraction * len(data) >> 16


@_kind
def flip(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    place = _place(data, edit.at)
    changed = bytes(b ^ 1 << edit.number % 8 for b in data[place : place + 1])
    return data[:place] + changed + data[place + 1 :]


@_kind
def replace(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    place = _place(data, edit.at)
    return data[:place] + bytes([edit.other % 256]) + data[place + 1 :]


@_kind
def cut(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    return data[: _place(data, edit.at)]


@_kind
def delete(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    place = _place(data, edit.at)
    return data[:place] + data[place + 1 + edit.other % 64 :]


@_kind
def repeat(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    first, last = sorted((_place(data, edit.at), _place(data, edit.other)))
    return data[:last] + data[first : first + 4096] + data[last:]


@_kind
def insert(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    place = _place(data, edit.at)
    return data[:place] + _WORDS[edit.number % len(_WORDS)] + data[place:]


@_kind
def splice(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    other = seeds[edit.number % len(seeds)]
    return data[: _place(data, edit.at)] + other[_place(other, edit.other) :]


@_kind
def binary_number(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    """Overwrite 2, 4 or 8 bytes of a header, of either byte order."""
    place = _place(data[:4096], edit.at)
    size, order = (2, 4, 8)[edit.other % 3], ("little", "big")[edit.other % 2]
    value = _NUMBERS[edit.number % len(_NUMBERS)] % (1 << 8 * size)
    packed = value.to_bytes(size, "little" if order == "little" else "big")
    return data[:place] + packed + data[place + size :]


@_kind
def decimal_number(data: bytes, edit: Edit, seeds: Sequence[bytes]) -> bytes:
    """Replace a number in text."""
    found = list(_DECIMAL.finditer(data[:20_000]))
    if not found:
        return data
    match = found[edit.at % len(found)]
    number = str(_NUMBERS[edit.number % len(_NUMBERS)]).encode()
    return data[: match.start()] + number + data[match.end() :]


_edits = st.lists(
    st.builds(
        Edit,
        kind=st.sampled_from(sorted(_KINDS)),
        at=st.integers(0, 2**16 - 1),
        other=st.integers(0, 2**16 - 1),
        number=st.integers(0, 2**10),
    ),
    min_size=1,
    max_size=3,
)


def damaged(seeds: Sequence[bytes]) -> Strategy:
    """One of the files, changed in one to three ways."""

    def apply(index: int, edits: Sequence[Edit]) -> bytes:
        data = seeds[index]
        for edit in edits:
            data = _KINDS[edit.kind](data, edit, seeds)
        return data

    return st.builds(apply, st.integers(0, len(seeds) - 1), _edits)


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_NUMBERS),
    st.integers(-3, 3000),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(("\x1b[2J", "\ud800", "a" * 3000, "../../x", "/etc/passwd", "nul\0")),
)
values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
"""Any value of JSON, and NaN."""


def changed_json(seeds: Sequence[object]) -> Strategy:
    """One of the documents with one or two values replaced, removed, or added."""

    def apply(index: int, changes: Sequence[tuple[int, int, object]]) -> bytes:
        document = json.loads(json.dumps(seeds[index]))
        for place, how, value in changes:
            parents = [each for each in _containers(document) if each]
            if not parents:
                document = value
                continue
            parent = parents[place % len(parents)]
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            key = keys[how % len(keys)]
            if how % 7 == 0:
                del parent[key]
            elif how % 7 == 1 and isinstance(parent, dict):
                parent[f"{key}x"] = value
            else:
                parent[key] = value
        return json.dumps(document).encode("utf-8", "surrogatepass")

    change = st.tuples(st.integers(0, 1000), st.integers(0, 1000), values)
    indices = st.integers(0, len(seeds) - 1)
    return st.builds(apply, indices, st.lists(change, min_size=1, max_size=2))


def _containers(value: object) -> list[dict[str, object] | list[object]]:  # type: ignore[type-arg]
    found: list[dict[str, object] | list[object]] = []
    if isinstance(value, dict):
        found = [value, *(one for each in value.values() for one in _containers(each))]
    elif isinstance(value, list):
        found = [value, *(one for each in value[:50] for one in _containers(each))]
    return found
