"""Whatever an image file stores, the tensor has the colours that a viewer shows."""

import struct
import warnings

import numpy as np
import pytest
import torch
from made_data import flat_png, png, png_claiming, to_bytes
from PIL import Image
from torch import Tensor

from wuerstchen.data import images
from wuerstchen.data.images import MAX_PIXELS, PixelLimitError
from wuerstchen.errors import ConfigError, DataError
from wuerstchen.geometry import Shape

QUADRANTS = np.zeros((32, 32, 3), dtype=np.uint8)  # red | green over blue | white
QUADRANTS[:16, :16] = (255, 0, 0)
QUADRANTS[:16, 16:] = (0, 255, 0)
QUADRANTS[16:, :16] = (0, 0, 255)
QUADRANTS[16:, 16:] = (255, 255, 255)

# How an upright image is stored under each orientation (EXIF 2.32, tag 0x0112).
STORED = {
    1: QUADRANTS,
    2: np.fliplr(QUADRANTS),
    3: np.rot90(QUADRANTS, 2),
    4: np.flipud(QUADRANTS),
    5: QUADRANTS.transpose(1, 0, 2),
    6: np.rot90(QUADRANTS, 1),
    7: np.rot90(QUADRANTS, 2).transpose(1, 0, 2),
    8: np.rot90(QUADRANTS, -1),
}


def decode(data: bytes, size: int, background: str) -> Tensor:
    """The image as a square."""
    return images.decode(data, [Shape(size, size)], background)[1]


def only_colour(image: Tensor) -> list[int]:
    """The one colour of an image; fails where there are several."""
    colours = image.flatten(1).unique(dim=1)
    assert colours.shape[1] == 1
    return colours[:, 0].tolist()


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (16, 16), colour)


@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_comes_out_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    image = decode(to_bytes(stored, exif=exif), 32, "white")
    assert np.array_equal(image.permute(1, 2, 0).numpy(), QUADRANTS)


def test_exif_turns_a_large_jpeg_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    large = Image.fromarray(np.ascontiguousarray(STORED[6])).resize((1024, 1024), 0)
    image = decode(to_bytes(large, "JPEG", exif=exif, quality=95), 32, "white").float()
    for row, column, colour in ((4, 4, [255, 0, 0]), (4, 28, [0, 255, 0]), (28, 4, [0, 0, 255])):
        assert (image[:, row, column] - torch.tensor(colour)).abs().max() < 8


@pytest.mark.parametrize(
    ("background", "expected"),
    [("white", [255, 127, 127]), ("#0000ff", [128, 0, 127]), ("black", [128, 0, 0])],
)
def test_a_half_transparent_image_is_mixed_with_the_background(background, expected):
    image = decode(to_bytes(flat("RGBA", (255, 0, 0, 128))), 16, background)
    assert only_colour(image) == expected


def transparent_images() -> dict[str, bytes]:
    palette = flat("P", 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    return {
        "RGBA": to_bytes(flat("RGBA", (9, 9, 9, 0))),
        "grey with alpha": to_bytes(flat("LA", (9, 0))),
        "palette with one clear colour": to_bytes(palette, transparency=1),
        "palette with alpha values": to_bytes(palette, transparency=b"\xff\x00"),
        "palette GIF": to_bytes(palette, "GIF", transparency=1),
        "RGB with a clear colour": to_bytes(flat("RGB", (9, 8, 7)), transparency=(9, 8, 7)),
        "grey with a clear grey": to_bytes(flat("L", 9), transparency=9),
        "WebP": to_bytes(flat("RGBA", (9, 9, 9, 0)), "WEBP", lossless=True),
    }


@pytest.mark.parametrize("kind", transparent_images())
def test_what_is_clear_shows_the_background_in_every_kind_of_transparency(kind):
    assert only_colour(decode(transparent_images()[kind], 16, "#fe8001")) == [254, 128, 1]


def test_grey_levels_are_kept():
    assert only_colour(decode(to_bytes(flat("L", 100)), 16, "white")) == [100, 100, 100]
    assert only_colour(decode(to_bytes(flat("1", 1)), 16, "black")) == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("level", [0, 1, 100, 128, 254, 255])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind, level):
    deep = Image.fromarray(np.full((16, 16), level * 257, dtype=np.uint16))
    assert only_colour(decode(to_bytes(deep, kind), 16, "white")) == [level] * 3


@pytest.mark.parametrize(("level", "shown"), [(100, 0), (257 * 100, 100), (65_535, 255)])
def test_sixteen_bit_grey_with_a_clear_level_is_scaled_and_only_that_level_is_clear(level, shown):
    assert only_colour(decode(flat_png(16, (level,), (5,)), 16, "#0102ff")) == [shown] * 3
    assert only_colour(decode(flat_png(16, (level,), (level,)), 16, "#0102ff")) == [1, 2, 255]


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_clear_colour_of_a_png_counts_in_the_bits_of_the_file(depth, colours):
    if colours == 3 and depth < 8:
        return  # PNG has no such RGB
    white = 2**depth - 1
    for level in (0, white // 3, white):
        same, other = (level,) * colours, (white - level,) * colours
        assert only_colour(decode(flat_png(depth, same, same), 16, "#0102ff")) == [1, 2, 255]
        grey = only_colour(decode(flat_png(depth, same, other), 16, "#0102ff"))
        assert grey == [level * 255 // white] * 3


def test_the_clear_colour_of_a_16_bit_png_is_compared_by_its_upper_bits():
    colour, other = (40_000, 1000, 300), (40_000, 1000, 30_000)  # upper bits: 156, 3, 1
    assert only_colour(decode(flat_png(16, colour, colour), 16, "#0102ff")) == [1, 2, 255]
    assert only_colour(decode(flat_png(16, colour, other), 16, "#0102ff")) == [156, 3, 1]


@pytest.mark.parametrize(
    ("levels", "shown"), [((0, 100), (0, 100)), ((0, 255), (0, 255)), ((257, 65_535), (1, 255))]
)
def test_32_bit_grey_has_the_range_of_8_bits_or_else_16_that_holds_it(levels, shown):
    pixels = np.repeat(np.array(levels, dtype=np.int32), 8)[None].repeat(16, axis=0)
    image = decode(to_bytes(Image.fromarray(pixels), "TIFF"), 16, "white")
    assert (image[:, :, 0].unique().tolist(), image[:, :, 15].unique().tolist()) == (
        [shown[0]],
        [shown[1]],
    )


@pytest.mark.parametrize("level", [-1, 65_536, 2**31 - 1])
def test_32_bit_grey_that_no_known_range_holds_is_refused(level):
    with pytest.raises(DataError, match="grey levels of 0 to 65,535"):
        decode(to_bytes(flat("I", level), "TIFF"), 16, "white")


def test_pgm_of_16_bits_is_scaled_by_them_however_dark_it_is():
    deep = Image.fromarray(np.full((16, 16), 100, dtype=np.uint16))
    assert only_colour(decode(to_bytes(deep, "PPM"), 16, "white")) == [0, 0, 0]


@pytest.mark.parametrize(("level", "shown"), [(0, 0), (0x888, 136), (0xFFF, 255)])
def test_twelve_bit_grey_is_scaled_by_12_bits(level, shown):
    bytes_of_rows = Image.frombytes("L", (24, 16), bytes.fromhex(f"{level:03x}" * 2) * 128)
    data = to_bytes(bytes_of_rows, "TIFF")
    for tag, size, old, new in ((256, 4, 24, 16), (258, 3, 8, 12)):  # width, bits per sample
        if (entry := struct.pack("<HHII", tag, size, 1, old)) not in data:
            entry, size = struct.pack("<HHII", tag, 7 - size, 1, old), 7 - size
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack("<HHII", tag, size, 1, new))
    assert only_colour(decode(data, 16, "white")) == [shown] * 3


def test_cmyk_inks_become_the_colours_they_print():
    for inks, expected in (
        ((255, 0, 0, 0), [0, 255, 255]),  # cyan
        ((0, 255, 255, 0), [255, 0, 0]),  # magenta and yellow
        ((0, 0, 0, 255), [0, 0, 0]),
        ((0, 0, 0, 0), [255, 255, 255]),
    ):
        assert only_colour(decode(to_bytes(flat("CMYK", inks), "TIFF"), 16, "white")) == expected
        jpeg = decode(to_bytes(flat("CMYK", inks), "JPEG", quality=95), 16, "white").int()
        assert (jpeg - torch.tensor(expected).view(3, 1, 1)).abs().max() <= 3


def test_palette_indices_become_their_colours():
    image = flat("P", 2)
    image.putpalette([0, 0, 0, 1, 1, 1, 70, 80, 90])
    for kind in ("PNG", "GIF", "BMP"):
        assert only_colour(decode(to_bytes(image, kind), 16, "white")) == [70, 80, 90]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(kind):
    first, second = flat("RGB", (255, 0, 0)), flat("RGB", (0, 0, 255))
    data = to_bytes(first, kind, save_all=True, append_images=[second], lossless=True)
    assert only_colour(decode(data, 16, "white")) == [255, 0, 0]


@pytest.mark.parametrize("upright", [True, False])
def test_the_middle_of_a_long_image_is_kept(upright):
    stripes = np.zeros((32, 96, 3), dtype=np.uint8)
    stripes[:, :32], stripes[:, 32:64], stripes[:, 64:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = stripes.transpose(1, 0, 2) if upright else stripes
    image = decode(to_bytes(Image.fromarray(np.ascontiguousarray(stored))), 32, "white")
    assert only_colour(image) == [0, 255, 0]


def test_an_image_of_the_asked_size_is_not_touched():
    noise = np.random.default_rng(0).integers(0, 256, (32, 45, 3), dtype=np.uint8)
    image = decode(to_bytes(Image.fromarray(noise)), 32, "white")
    assert np.array_equal(image.permute(1, 2, 0).numpy(), noise[:, 6:38])


def test_making_smaller_averages_instead_of_picking_pixels():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    image = decode(to_bytes(Image.fromarray(board)), 32, "white").int()
    assert (image - 127).abs().max() <= 2


def test_the_shortcut_for_large_jpegs_shows_the_same_image():
    rows, columns = np.mgrid[0:1600, 0:1700]
    waves = 120 + 100 * np.sin(columns / 6)  # seven pixels long in the small image
    image = Image.fromarray(np.stack([rows / 7, columns / 7, waves], -1).astype(np.uint8))
    jpeg = decode(to_bytes(image, "JPEG", quality=98, subsampling=0), 256, "white").int()
    exact = decode(to_bytes(image), 256, "white").int()
    assert (jpeg - exact).abs().max() <= 8


def test_a_small_image_is_made_larger():
    image = decode(png((7, 8, 9), side=5), 128, "white")
    assert image.shape == (3, 128, 128) and image.dtype == torch.uint8
    assert only_colour(image) == [7, 8, 9]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_cut_off_file_is_an_error(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = to_bytes(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match="decodes"):
        decode(data[: len(data) * 2 // 3], 32, "white")


@pytest.mark.parametrize("data", [b"", b"no image at all", png()[:20]])
def test_bytes_that_are_no_image_are_an_error(data):
    with pytest.raises(DataError, match="decodes"):
        decode(data, 32, "white")


def test_float_pixels_without_a_range_are_refused():
    with pytest.raises(DataError, match="floating point"):
        decode(to_bytes(flat("F", 0.5), "TIFF"), 16, "white")


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("times", [1.01, 2.5])
def test_an_image_over_the_pixel_limit_is_refused_unread(action, times):
    width = int(MAX_PIXELS * times / 1000)
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(PixelLimitError, match="pixels"):
            decode(png_claiming(width, 1000), 32, "white")


def test_an_unknown_background_is_a_config_error():
    with pytest.raises(ConfigError, match=r"data\.background.*'blurple'"):
        decode(png(), 32, "blurple")
