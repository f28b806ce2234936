"""Text and colour profiles of PNG files (11.3), bounded before Pillow unpacks them.

Pillow refuses a file with more than 1 MiB of either, although its pixels are sound.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from wuerstchen.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_KEPT = 2**20
"""Bytes of a text or profile that Pillow reads (its MAX_TEXT_CHUNK)."""

_LIMIT = 2**24
"""Bytes that a text or profile may unpack to; larger ones are not read."""

_TOTAL_LIMIT = 2**26
"""Bytes that all of them may unpack to (Pillow's MAX_TEXT_MEMORY)."""

_TOO_LARGE = "Expected less text or a smaller profile beside the pixels: it is too large to unpack."

_FRAME = 12
"""Bytes of a chunk's length, name and checksum."""

_PIECE = 2**20
"""Bytes to decompress at a time."""


class MetadataLimitError(DataError):
    """Text or profiles beside the pixels unpack to more than any program writes."""


class Chunk(NamedTuple):
    """A chunk of a PNG file."""

    name: bytes
    start: int
    """Of its length, in bytes."""
    data: memoryview


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks up to IEND; struct.error if the file ends within one's header."""
    at, view = len(SIGNATURE), memoryview(data)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name = data[at + 4 : at + 8]
        yield Chunk(name, at, view[at + 8 : at + 8 + length])
        if name == b"IEND":
            return
        at += _FRAME + length


def inflated(packed: bytes) -> Iterator[bytes]:
    """Decompressed data in pieces, up to an error or just above the limit."""
    inflater, size = zlib.decompressobj(), 0
    while packed and size <= _LIMIT:
        try:
            piece = inflater.decompress(packed, _PIECE)
        except zlib.error:
            return  # Pillow ignores damaged ones
        size += len(piece)
        packed = inflater.unconsumed_tail
        yield piece


def without_large_metadata(data: bytes) -> tuple[bytes, bytes | None, bool]:
    """A PNG file without texts and profiles of over 1 MiB; the profile among them; and whether
    there were others.

    Raises MetadataLimitError if one unpacks to more than 16 MiB, or all of them to 64.
    """
    found: list[tuple[Chunk, bool]] = []
    unpacked = total = 0
    for chunk in _metadata(data):
        packed = _packed(chunk)
        size = len(chunk.data) if packed is None else sum(map(len, inflated(packed)))
        total += size
        if packed is not None:
            unpacked += size
            if size > _LIMIT or unpacked > _TOTAL_LIMIT:
                raise MetadataLimitError(_TOO_LARGE)
        found.append((chunk, size > _KEPT))
    too_many = total > _TOTAL_LIMIT  # Pillow counts plain and unpacked ones together
    removed = [chunk for chunk, is_large in found if is_large or too_many]
    profiles = [_packed(chunk) or b"" for chunk in removed if chunk.name == b"iCCP"]
    kept, at = bytearray(), 0
    for chunk in removed:
        kept += data[at : chunk.start]
        at = chunk.start + _FRAME + len(chunk.data)
    pixels = bytes(kept + data[at:]) if removed else data
    profile = b"".join(inflated(profiles[0])) if profiles else None
    return pixels, profile, len(removed) > len(profiles[:1])


def _metadata(data: bytes) -> Iterator[Chunk]:
    """Chunks with texts and profiles, up to where the file is cut off."""
    try:
        for chunk in chunks(data):
            if chunk.name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
                yield chunk
    except struct.error:
        return


def _packed(chunk: Chunk) -> bytes | None:
    """The compressed part of a text or profile (11.3.3, 11.3.2.3); None if it is not compressed."""
    _, _, rest = bytes(chunk.data).partition(b"\0")
    if chunk.name == b"tEXt":
        return None
    if chunk.name != b"iTXt":
        return rest[1:]  # after the method
    return rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else None
