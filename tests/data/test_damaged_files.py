"""Damaged files: each is skipped with its name and reason, and the others are trained on."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wuerstchen.config import DataConfig
from wuerstchen.data import open_pairs


def image(kind: str = "PNG", side: int = 64) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    """64 x 64 pixels with a header of another size and a valid checksum."""
    data = bytearray(image())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_that_says(width: int, height: int) -> bytes:
    data = bytearray(image("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


IMAGES = {
    "taller.png": (png_that_says(64, 4000), "image does not decode"),
    "bomb.png": (png_that_says(100_000, 100_000), "image over the pixel limit"),
    "half.jpg": (image("JPEG", 256)[:4000], "image does not decode"),
    "empty.png": (b"", "image does not decode"),
    "words.png": (b"not an image", "image does not decode"),
    "cut.png": (image()[:200], "image does not decode"),
}

CAPTIONS = {
    "utf-16": ("ein Würstchen".encode("utf-16"), ("ein Würstchen",)),
    "latin-1": ("ein Würstchen".encode("latin-1"), None),
    "utf-8 with a mark": ("ein Würstchen".encode("utf-8-sig"), ("ein Würstchen",)),
    "lines of Windows": (b"one\r\ntwo\r\n", ("one\ntwo",)),
    "a very long line": (b"word " * 50_000, (("word " * 50_000).strip(),)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_are_not_what_they_say_are_named(tmp_path: Path, name: str) -> None:
    data, reason = IMAGES[name]
    for file, content in ((name, data), ("good.png", image())):
        (tmp_path / file).write_bytes(content)
        (tmp_path / file).with_suffix(".txt").write_text("an image")
    train, test, report = open_pairs(DataConfig(path=str(tmp_path), test_fraction=0))
    assert [pair.key for pair in train] == ["good.png"] and not len(test)
    assert report.skipped == {reason: [name]}


def test_a_jpeg_that_claims_to_be_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.jpg").write_bytes(jpeg_that_says(65_000, 65_000))
    (tmp_path / "good.png").write_bytes(image())
    config = DataConfig(path=str(tmp_path), test_fraction=0, caption="an image")
    _, _, report = open_pairs(config)
    assert report.skipped == {"image over the pixel limit": ["bomb.jpg"]}


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_of_any_encoding_are_read_or_named(tmp_path: Path, name: str) -> None:
    data, expected = CAPTIONS[name]
    for stem, caption in (("odd", data), ("good", b"an image")):
        (tmp_path / f"{stem}.png").write_bytes(image())
        (tmp_path / f"{stem}.txt").write_bytes(caption)
    train, _, report = open_pairs(DataConfig(path=str(tmp_path), test_fraction=0))
    found = {pair.key: pair.captions for pair in train}
    if expected is None:
        assert report.skipped == {"caption is not UTF-8 text": ["odd.png"]}
        assert set(found) == {"good.png"}
    else:
        assert found == {"odd.png": expected, "good.png": ("an image",)}


def test_one_caption_for_all_needs_no_files(tmp_path: Path) -> None:
    """Also in place of captions that exist or cannot be read."""
    for stem in ("bare", "named", "odd"):
        (tmp_path / f"{stem}.png").write_bytes(image())
    (tmp_path / "named.txt").write_text("another caption")
    (tmp_path / "odd.txt").write_bytes("Würstchen".encode("latin-1"))
    config = DataConfig(path=str(tmp_path), test_fraction=0, caption="a photo of sks dog")
    train, _, report = open_pairs(config)
    assert [pair.captions for pair in train] == [("a photo of sks dog",)] * 3
    assert not report.skipped
