"""Members of an uncompressed tar, by their headers (POSIX.1-2017, section pax; GNU tar 1.35).

Python's tarfile believes every size: one header can ask for terabytes of memory or lead back to
an earlier one, and damage in one member ends the whole tar. Here sizes are compared with the file
first, and after a member whose size is not true the next header is searched for.
"""

import os
import posixpath
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

BLOCK = 512

_LARGEST_EXTENSION = 2**20
"""Bytes of a long name or of extended attributes that are read."""

_PIECE = 2**20
"""Bytes to search at a time, and bytes of padding after which nothing is expected."""

Kind = Literal["file", "link", "sparse", "other", "untrue", "corrupt"]
"""untrue: a member whose size is not; corrupt: not a member, the rest cannot be read."""

_KINDS: dict[bytes, Kind] = {
    **dict.fromkeys((b"0", b"\0", b"7"), "file"),
    **dict.fromkeys((b"1", b"2"), "link"),
    b"S": "sparse",
}

_NO_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Links, devices and folders: a size in their headers is not followed by data."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a tar, or what is there in place of one."""

    kind: Kind
    name: str
    offset: int
    """Of its bytes; of the header if `kind` is corrupt."""
    size: int = 0
    target: str = ""
    """Name of the member that a link leads to."""


@dataclass(slots=True)
class _Extension:
    """What headers of their own say about the member that follows them."""

    name: str = ""
    target: str = ""
    size: int | None = None
    sparse: bool = False
    damaged: bool = False


def members(file: BinaryIO) -> Iterator[Member]:
    """All members except folders, in order.

    An end mark is not believed if members follow, as in tars that were joined by `cat`.
    """
    end = os.fstat(file.fileno()).st_size
    at: int | None = 0
    extension = _Extension()
    while at is not None and at < end:
        block = _read(file, at, BLOCK)
        if not any(block):
            at = _after_zeros(file, at)
            continue
        if not _is_header(block):
            yield Member("corrupt", "", at)
            return
        kind, size, start = block[156:157], _number(block[124:136]), at + BLOCK
        if kind == b"S":
            start = _after_sparse_map(file, block, start)
        if extension.size is not None and kind not in b"LKxXg":
            size = extension.size
        if kind in _NO_DATA:
            size = 0
        if size is None or not 0 <= size <= end - start:
            found = _next_header(file, at + BLOCK, end)
            name = extension.name or _name(block)
            yield Member("corrupt", "", at) if found is None else Member("untrue", name, start)
            at, extension = found, _Extension()
            continue
        at = start + -(-size // BLOCK) * BLOCK
        if kind in b"LKxXg":
            _extend(extension, kind, _read(file, start, min(size, _LARGEST_EXTENSION)), size)
            continue
        if kind != b"5" and not (kind == b"\0" and _name(block).endswith("/")):
            yield _member(kind, block, extension, start, size)
        extension = _Extension()


def _member(kind: bytes, block: bytes, extension: _Extension, start: int, size: int) -> Member:
    name = extension.name or _name(block)
    if extension.damaged:
        return Member("untrue", name, start)
    if extension.sparse:
        return Member("sparse", name, start)
    target = extension.target or _text(block[157:257])
    if kind == b"2":  # symbolic links are relative to themselves
        target = posixpath.join(posixpath.dirname(name), target)
    return Member(_KINDS.get(kind, "other"), name, start, size, posixpath.normpath(target))


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, start)


def _is_header(block: bytes) -> bool:
    """Whether the checksum of all bytes is right; early tars added up signed ones."""
    if len(block) < BLOCK:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    stored = _number(block[148:156])
    return stored is not None and stored in (sum(rest), sum(struct.unpack("512b", rest)))


def _number(digits: bytes) -> int | None:
    """A number in octal digits, or of GNU's in base 256; None for anything else."""
    if digits[0] & 0x80:
        value = int.from_bytes(digits, "big", signed=True)
        return value if digits[0] == 0xFF else value + (1 << (8 * len(digits) - 1))
    text = digits.partition(b"\0")[0].strip()
    return int(text or b"0", 8) if re.fullmatch(rb"[0-7]*", text) else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _name(block: bytes) -> str:
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(block[:100])}" if prefix else _text(block[:100])


def _after_zeros(file: BinaryIO, at: int) -> int | None:
    """The next block that is not empty, if it is near: a tar is padded with empty ones."""
    for start, piece in _pieces(file, at, at + _PIECE):
        if rest := piece.lstrip(b"\0"):
            return start + (len(piece) - len(rest)) // BLOCK * BLOCK
    return None


def _after_sparse_map(file: BinaryIO, block: bytes, start: int) -> int:
    """Where the data of a sparse file of GNU's old format begins.

    A map ends at the next header, so that maps that overlap are not read again and again.
    """
    more = block[482]
    while more and len(block := _read(file, start, BLOCK)) == BLOCK and not _has_magic(block):
        start, more = start + BLOCK, block[504]
    return start


def _next_header(file: BinaryIO, at: int, end: int) -> int | None:
    """The first header from `at` on; None if there is none."""
    for start, piece in _pieces(file, at, end):
        for offset in range(0, len(piece), BLOCK):
            if _has_magic(piece[offset : offset + BLOCK]):
                return start + offset
    return None


def _pieces(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The bytes from `at` to `end` with their offsets.

    Each piece is twice as long as the one before: at most three times the bytes are read that the
    caller needs, whether the next header is near or far.
    """
    size = BLOCK
    while at < end and (piece := _read(file, at, min(size, end - at))):
        yield at, piece
        at, size = at + len(piece), min(2 * size, _PIECE)


def _has_magic(block: bytes) -> bool:
    """Whether a block is a header beyond doubt, by its magic and its checksum."""
    return block[257:262] == b"ustar" and _is_header(block)


def _extend(extension: _Extension, kind: bytes, data: bytes, size: int) -> None:
    """Add what a header of an extended header's `kind` says; `data` may be cut off."""
    if kind == b"g":  # for all members: comments, as `git archive` writes
        return
    if len(data) < size:
        extension.damaged = True
    elif kind == b"L":
        extension.name = _text(data)
    elif kind == b"K":
        extension.target = _text(data)
    else:
        _add_records(extension, data)


def _add_records(extension: _Extension, data: bytes) -> None:
    """Records of a pax header: LENGTH KEY=VALUE and a line feed."""
    at = 0
    while at < len(data) and data[at]:
        length = re.match(rb"(\d{1,9}) ", data[at : at + 10])
        if length is None or not length.end() < int(length[1]) <= len(data) - at:
            extension.damaged = True
            return
        record = data[at + length.end() : at + int(length[1]) - 1]
        key, _, value = record.partition(b"=")
        if key == b"path":
            extension.name = _text(value)
        elif key == b"linkpath":
            extension.target = _text(value)
        elif key == b"size":
            extension.size = int(value) if re.fullmatch(rb"\d{1,18}", value) else -1
        elif key.startswith(b"GNU.sparse."):
            extension.sparse = True
            extension.name = _text(value) if key == b"GNU.sparse.name" else extension.name
        at += int(length[1])
