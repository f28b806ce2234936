"""PNG files whose pixels end before the size that their header claims.

Pillow takes them and leaves the rest of the image black (PNG specification, third edition).
"""

import struct
import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

from wuerstchen.errors import DataError

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type (11.2.1)."""

_WHOLE = ((0, 0, 1, 1),)
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column and row of each pass of an interlaced image, and the steps between them (8.2)."""

_AT_ONCE = 2**20


def check_rows(image: PngImageFile, data: bytes) -> None:
    """Raise DataError where the decoded `image` has more rows than the bytes of its file hold.

    They are counted only where the last rows are empty, since it takes as long as decoding: of an
    interlaced image the last pass holds every second row.
    """
    width, height = image.size
    last = image.crop((0, max(0, height - 2), width, height))
    rows = (last.crop((0, row, width, row + 1)) for row in range(last.height))
    if all(row.getbbox(alpha_only=False) is not None for row in rows):
        return
    expected, found = _expected(data), 0
    for count in _inflated(data):
        found += count
        if found >= expected:
            return
    raise DataError(
        f"Expected {width} x {height} pixels, as the header says, found {found:,} bytes of "
        f"{expected:,} for them."
    )


def _expected(data: bytes) -> int:
    """Bytes of all rows, each with the byte that names its filter (7.2)."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    total = 0
    for left, top, across, down in _PASSES if interlaced else _WHOLE:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * depth * _CHANNELS[kind] // 8))
    return total


def _inflated(data: bytes) -> Iterator[int]:
    """Lengths of what the image's data unpacks to, piece by piece."""
    unpacker = zlib.decompressobj()
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, part = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        while name == b"IDAT" and part:
            yield len(unpacker.decompress(part, _AT_ONCE))
            part = unpacker.unconsumed_tail
        if name == b"IEND":
            return
