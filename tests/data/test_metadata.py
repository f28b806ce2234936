"""What is beside the pixels of an image never costs them, and what is not used of it is named."""

import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from made_data import to_bytes, write
from made_sources import report as prepare_report
from made_sources import rows
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import open_pairs
from wuerstchen.data.images import decode, open_image
from wuerstchen.geometry import bucket_shapes
from wuerstchen.prepare.prepare import prepare

STRIPES = np.zeros((256, 512, 3), dtype=np.uint8)  # red, green and blue
STRIPES[:, :171, 0] = STRIPES[:, 171:342, 1] = STRIPES[:, 342:, 2] = 255
WIDE = Image.fromarray(STRIPES)
NOT_TURNED, UNREADABLE = "EXIF orientation other than 1 to 8", "EXIF that cannot be read"
LARGE = "text or profile over the size limit"


def exif(kind: int, count: int, value: bytes) -> bytes:
    """The orientation alone, as a little-endian TIFF (EXIF 2.32, tag 0x0112)."""
    entry = struct.pack("<HHHI", 1, 0x112, kind, count) + value.ljust(4, b"\0") + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + entry


ORIENTATIONS = {
    "zero": (exif(3, 1, b"\0"), NOT_TURNED),
    "nine": (exif(3, 1, b"\x09"), NOT_TURNED),
    "65537": (exif(4, 1, struct.pack("<I", 65537)), NOT_TURNED),
    "a negative number": (exif(9, 1, struct.pack("<i", -6)), NOT_TURNED),
    "a text": (exif(2, 2, b"6\0"), NOT_TURNED),
    "a byte": (exif(1, 1, b"\6"), NOT_TURNED),
    "bytes": (exif(7, 4, b"\6\6\6\6"), NOT_TURNED),
    "a fraction": (exif(11, 1, struct.pack("<f", 6.0)), NOT_TURNED),
    "no value": (exif(3, 0, b""), None),
    "cut off": (exif(3, 1, b"\6")[:20], None),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_orientation_that_does_not_exist_turns_nothing(name: str, kind: str) -> None:
    data, note = ORIENTATIONS[name]
    image = to_bytes(WIDE, kind, exif=data)
    opened = open_image(image, 256, "white")
    assert (opened.width, opened.height) == opened.image.size == (512, 256)
    assert opened.notes == ((note,) if note else ())
    _, pixels = decode(image, bucket_shapes(384), "white")
    assert pixels.shape == (3, 256, 512)
    colours = pixels[:, 128, [2, 256, 509]].argmax(0).tolist()
    assert colours == [0, 1, 2]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_that_is_damaged_costs_no_pixels(kind: str) -> None:
    opened = open_image(to_bytes(WIDE, kind, exif=b"Exif\0\0" + b"\x99" * 99), 256, "white")
    assert opened.image.size == (512, 256) and opened.notes == (UNREADABLE,)


def test_orientations_of_xmp_and_tiff_are_read_like_those_of_exif() -> None:
    tag = '<x:xmpmeta><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'
    for orientation, size, notes in ((6, (256, 512), ()), (9, (512, 256), (NOT_TURNED,))):
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory[0x112] = orientation
        for data in (
            to_bytes(WIDE, "WEBP", xmp=tag.format(orientation).encode()),
            to_bytes(WIDE, "TIFF", tiffinfo=directory),
        ):
            opened = open_image(data, 256, "white")
            assert (opened.width, opened.height) == opened.image.size == size
            assert opened.notes == notes


def large_metadata() -> dict[str, bytes]:
    """Formats with over 1 MiB of notes or profiles."""
    note, noise = "node {1: 2} " * 120_000, os.urandom(1_300_000)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + noise
    files = {
        "profile.png": to_bytes(WIDE, "PNG", icc_profile=profile),
        "profile.jpg": to_bytes(WIDE, "JPEG", icc_profile=profile),
        "profile.tiff": to_bytes(WIDE, "TIFF", icc_profile=profile),
        "all.webp": to_bytes(WIDE, "WEBP", icc_profile=profile, xmp=noise, lossless=True),
        "note.gif": to_bytes(WIDE, "GIF", comment=noise),
    }
    for name, options in {"zTXt": {"zip": True}, "tEXt": {"zip": False}}.items():
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("workflow", note, **options)
        files[f"{name}.png"] = to_bytes(WIDE, "PNG", pnginfo=chunks)
    for name, packed in {"iTXt": True, "plain-iTXt": False}.items():
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("workflow", note, zip=packed)
        files[f"{name}.png"] = to_bytes(WIDE, "PNG", pnginfo=chunks)
    for name, every in {"many": 100, "mixed": 2}.items():
        chunks = PngImagePlugin.PngInfo()
        for number in range(80):  # 72 MB, which Pillow refuses; packed and plain count together
            chunks.add_text(f"note {number}", "x" * 900_000, zip=number % every == 1)
        files[f"{name}.png"] = to_bytes(WIDE, "PNG", pnginfo=chunks)
    return files


def test_megabytes_beside_the_pixels_cost_none_of_them(tmp_path: Path) -> None:
    files = large_metadata()
    write(tmp_path, {**files, **{f"{name.split('.')[0]}.txt": name for name in files}})
    train, _, report = open_pairs(DataConfig(path=str(tmp_path), test_fraction=0))
    assert {pair.key for pair in train} == set(files) and not report.skipped
    texts = ["iTXt.png", "many.png", "mixed.png", "plain-iTXt.png", "tEXt.png", "zTXt.png"]
    assert report.ignored == {LARGE: texts}
    assert f"used without: 6 × {LARGE} (iTXt.png, many.png, " in report.summary()
    for data in files.values():
        image = np.asarray(open_image(data, 256, "white").image)[128, [85, 256, 426]]
        assert image.argmax(1).tolist() == [0, 1, 2]


def test_segments_of_a_jpeg_are_bounded_in_time() -> None:
    data = to_bytes(WIDE, "JPEG")
    segments = (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) * 300
    began = time.monotonic()
    opened = open_image(data[:2] + segments + data[2:], 256, "white")
    assert opened.image.size == (512, 256) and opened.notes == (LARGE,)
    assert time.monotonic() - began < 2  # Pillow alone takes 6


def test_a_preparation_keeps_the_sides_and_names_what_it_does_not_use(tmp_path: Path) -> None:
    nine = to_bytes(WIDE, "JPEG", exif=ORIENTATIONS["nine"][0])
    source = write(tmp_path / "in", {"nine.jpg": nine, "nine.txt": "nine", "Thumbs.db": "x"})
    out = prepare(str(source), tmp_path / "out", PrepareConfig(size=384))
    [row] = rows(out)
    sides = [row[name] for name in ("width", "height", "source_width", "source_height")]
    assert sides == [512, 256, 512, 256]
    found = prepare_report(out)
    assert found["ignored"] == {NOT_TURNED: {"count": 1, "examples": ["nine.jpg"]}}
    assert found["left_out"] == {"Thumbs.db": 1}
    page = (out / "report.html").read_text()
    assert NOT_TURNED in page and "1 × Thumbs.db" in page
