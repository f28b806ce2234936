"""EXIF and Photoshop segments of JPEG files (T.81, annex B), bounded before Pillow joins them.

Pillow appends each EXIF segment to those before it: 64 MB of them take it a minute.
"""

from collections.abc import Iterator

START = b"\xff\xd8\xff"

_KEPT = 2**20
"""Bytes of segments that are kept: cameras write one EXIF segment of at most 64 KiB."""

_SCAN, _NO_LENGTH = 0xDA, frozenset({0x01, *range(0xD0, 0xD9)})


def without_large_metadata(data: bytes) -> tuple[bytes, bool]:
    """A JPEG file without EXIF and Photoshop segments beyond 1 MiB, and whether there were any."""
    kept, at, total = bytearray(), 0, 0
    for start, end in _metadata(data):
        total += end - start
        if total > _KEPT:
            kept += data[at:start]
            at = end
    return (bytes(kept + data[at:]), True) if at else (data, False)


def _metadata(data: bytes) -> Iterator[tuple[int, int]]:
    """Where EXIF and Photoshop segments start and end."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        elif marker == _SCAN:
            return
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == 0xED or (marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0"):
                yield at, end
            at = end
