"""Malformed bytes: missing rows of pixels, captions that are not text, file names of any bytes."""

import json
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_data import png, to_bytes, write, write_tar
from made_sources import rows, some
from PIL import Image

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import open_pairs
from wuerstchen.data.images import decode
from wuerstchen.errors import DataError, SaveError
from wuerstchen.geometry import Shape
from wuerstchen.prepare.prepare import prepare

PASSES = 7


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grey_png(side: int, rows_held: int, *, interlaced: bool = False) -> bytes:
    """A white square; of an interlaced one the last pass can be left out."""
    row = b"\0" + b"\xff" * side
    data = row * rows_held
    if interlaced:  # columns of each pass for a side of 8, from the figure in section 8.2
        sizes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
        data = b"".join((b"\0" + b"\xff" * w) * h for w, h in sizes[:rows_held])
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, interlaced)
    body = chunk(b"IDAT", zlib.compress(data)[:10]) + chunk(b"IDAT", zlib.compress(data)[10:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def shown(data: bytes, side: int) -> np.ndarray:
    return decode(data, [Shape(side, side)], "white")[1].numpy()


@pytest.mark.parametrize(
    ("side", "held", "interlaced"), [(64, 32, False), (64, 63, False), (8, PASSES - 1, True)]
)
def test_a_png_with_fewer_rows_than_it_claims_is_no_image(
    side: int, held: int, interlaced: bool
) -> None:
    """Pillow shows missing rows black and reports nothing."""
    with pytest.raises(DataError, match=rf"{side} x {side} pixels, as the header says, found"):
        shown(grey_png(side, held, interlaced=interlaced), side)
    whole = PASSES if interlaced else side
    assert (shown(grey_png(side, whole, interlaced=interlaced), side) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_an_image_that_is_black_at_the_bottom_is_one(mode: str) -> None:
    image = Image.new(mode, (37, 41))
    assert shown(to_bytes(image), 32).shape == (3, 32, 32)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_what_unpacks_to_gigabytes_next_to_the_pixels_is_not_unpacked(name: bytes) -> None:
    small = png(side=64)
    bomb = chunk(name, b"k\0\0" + zlib.compress(bytes(20_000_000)))
    with pytest.raises(DataError, match="too large"):
        shown(small[:33] + bomb + small[33:], 32)


CAPTIONS: dict[str, dict[str, bytes | str]] = {
    "UTF-16 without a mark": {"odd.txt": "a red dog".encode("utf-16-le")},
    "UTF-32": {"odd.txt": "a red dog".encode("utf-32")},
    "a zero byte": {"odd.txt": b"a red\0dog"},
    "a zero byte in JSON": {"odd.json": json.dumps({"caption": "a\0b"})},
    "half a character in JSON": {"odd.json": '{"caption": "a dog \\ud83d"}'},
}


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("name", CAPTIONS)
def test_text_that_no_tokenizer_can_read_is_named(tmp_path: Path, name: str, kind: str) -> None:
    files = {"odd.png": png(), **CAPTIONS[name], "good.png": png(), "good.txt": "a dog 🐕"}
    path = write(tmp_path, files) if kind == "folder" else write_tar(tmp_path / "a.tar", files)
    train, _, report = open_pairs(DataConfig(path=str(path), test_fraction=0))
    assert [pair.captions for pair in train] == [("a dog 🐕",)]
    [names] = report.skipped.values()
    assert set(report.skipped) == {"caption is not UTF-8 text"} and names[0].startswith("odd")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_file_names_of_any_bytes_are_read_and_written_as_text(tmp_path: Path, kind: str) -> None:
    """Also in the index, the report and the page of a prepared set."""
    latin = os.fsdecode("café".encode("latin-1"))
    files: dict[str, bytes | str] = {f"{latin}.png": png(side=128), f"{latin}.txt": "a café"}
    files |= {f"{latin} cut.png": png(side=128)[:50], f"{latin} cut.txt": "a cut one"}
    files |= {f"{latin}.json": json.dumps({"name": "\ud83d"})}
    source = tmp_path / "source"
    path = write(source, files) if kind == "folder" else write_tar(source / f"{latin}.tar", files)
    where = source if kind == "tar" else path
    train, _, report = open_pairs(DataConfig(path=str(where), test_fraction=0, balance_by="name"))
    assert [pair.captions for pair in train] == [("a café",)]
    assert all("caf\\udce9" in pair.key for pair in train)
    json.dumps(report.to_dict(), ensure_ascii=False).encode()
    config = PrepareConfig(size=128, balance_by="name", test_fraction=0)
    [row] = rows(prepare(str(where), tmp_path / "set", config))
    assert "caf\\udce9" in str(row["key"]) and row["captions"] == ["a café"]


def test_a_full_disk_stops_a_preparation_which_then_goes_on(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(8))
    config = PrepareConfig(size=128, shard_size=4, duplicate_distance=None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(SaveError, match=r"00000\.tar could not be written \(File too large"):
            prepare(str(source), tmp_path / "out", config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out" / "prepared.json").exists()
    assert not list((tmp_path / "out" / "parts").glob(".*.tar*"))
    again = prepare(str(source), tmp_path / "out", config)
    whole = prepare(str(source), tmp_path / "whole", config)
    assert rows(again) == rows(whole)
