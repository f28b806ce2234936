"""Laws of colour profiles: other colours are converted to sRGB, by an independent calculation."""

import struct

import numpy as np
import pytest
from made_sources import as_bytes
from PIL import Image, ImageCms

from wuerstchen.data.images import open_image

P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""Red, green and blue of Display P3 as XYZ under D50 (SMPTE EG 432-1, adapted)."""
SRGB_TO_XYZ = np.array(
    [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]
)


def profile(colours: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """A matrix profile with one gamma, version 2.1 of ICC, made by hand."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    text = b"a wide one\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz(colours[0]),
        b"gXYZ": xyz(colours[1]),
        b"bXYZ": xyz(colours[2]),
    }
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += padded
    size = struct.pack(">I", start + len(body))
    head = size + bytes(4) + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head += bytes(128 - len(head) - 60) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return head + bytes(128 - len(head)) + table + body


def expected(rgb: np.ndarray) -> np.ndarray:
    """sRGB of P3 numbers with gamma 2.2, by the matrices (IEC 61966-2-1), clipped."""
    linear = np.linalg.inv(SRGB_TO_XYZ) @ np.array(P3).T @ (rgb / 255) ** 2.2
    linear = linear.clip(0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return coded * 255


@pytest.mark.parametrize("colour", [(200, 100, 60), (40, 160, 90), (128, 128, 128), (20, 40, 120)])
def test_wide_colours_become_srgb(colour: tuple[int, int, int]) -> None:
    data = as_bytes(Image.new("RGB", (40, 40), colour), icc_profile=profile(P3))
    found = np.asarray(open_image(data, 32, "white").image)[20, 20].astype(float)
    assert np.abs(found - expected(np.array(colour))).max() <= 2


def test_transparency_survives() -> None:
    image = Image.new("RGBA", (40, 40), (200, 100, 60, 0))
    data = as_bytes(image, icc_profile=profile(P3))
    assert open_image(data, 32, "#010203").image.getpixel((5, 5)) == (1, 2, 3)


@pytest.mark.parametrize(
    "data",
    [b"no profile at all", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
)
def test_srgb_and_damaged_profiles_change_nothing(data: bytes) -> None:
    image = Image.new("RGB", (40, 40), (200, 100, 60))
    assert open_image(as_bytes(image, icc_profile=data), 32, "white").image.getpixel((5, 5)) == (
        200,
        100,
        60,
    )


def test_a_profile_of_over_a_mebibyte_counts_like_a_small_one() -> None:
    """Press profiles have that size; Pillow refuses them in PNG."""
    image = Image.new("RGB", (16, 16), (200, 100, 60))
    small, large = profile(P3), bytearray(profile(P3) + bytes(1_300_000))
    large[:4] = struct.pack(">I", len(large))
    for kind in ("PNG", "WEBP"):
        files = [as_bytes(image, kind, icc_profile=bytes(data)) for data in (small, large)]
        first, second = (open_image(data, 16, "white").image for data in files)
        assert first.getpixel((1, 1)) == second.getpixel((1, 1)) != (200, 100, 60)
