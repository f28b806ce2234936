"""Detect PNG files with fewer rows of pixels than their header claims.

Pillow accepts them and leaves the rest of the image black (PNG specification, third edition).
"""

import struct
import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

from wuerstchen.data.png_metadata import chunks
from wuerstchen.errors import DataError

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type (11.2.1)."""

_NOT_INTERLACED = ((0, 0, 1, 1),)
_INTERLACED = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column and row of each pass, and the steps between columns and rows (8.2)."""

_INFLATE_LIMIT = 2**20
"""Bytes to decompress at a time."""


def check_rows(image: PngImageFile, data: bytes) -> None:
    """Raise DataError if the file holds fewer rows than the decoded `image` has.

    Counting takes as long as decoding, so it is done only if one of the last two rows is empty:
    the last pass of an interlaced image holds every second row.
    """
    width, height = image.size
    last = image.crop((0, max(0, height - 2), width, height))
    rows = (last.crop((0, row, width, row + 1)) for row in range(last.height))
    if all(row.getbbox(alpha_only=False) is not None for row in rows):
        return
    expected, found = _expected_bytes(data), 0
    for count in _inflated_sizes(data):
        found += count
        if found >= expected:
            return
    raise DataError(
        f"Expected {width} x {height} pixels, as the header says, found {found:,} of the "
        f"{expected:,} bytes that they take."
    )


def _expected_bytes(data: bytes) -> int:
    """Bytes of all rows, each with a byte for its filter type (7.2)."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    total = 0
    for left, top, across, down in _INTERLACED if interlaced else _NOT_INTERLACED:
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        if columns:
            total += rows * (1 + -(-columns * depth * _CHANNELS[kind] // 8))
    return total


def _inflated_sizes(data: bytes) -> Iterator[int]:
    """Sizes of the decompressed image data, chunk by chunk."""
    inflater = zlib.decompressobj()
    for chunk in chunks(data):
        rest = bytes(chunk.data) if chunk.name == b"IDAT" else b""
        while rest:
            yield len(inflater.decompress(rest, _INFLATE_LIMIT))
            rest = inflater.unconsumed_tail
