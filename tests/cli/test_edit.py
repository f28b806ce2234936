"""`wuerstchen generate --image` and `wuerstchen reconstruct`: files, settings, replays."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import FEW, pixels_of
from PIL import Image

from wuerstchen import cli
from wuerstchen.inference.png_metadata import read_settings
from wuerstchen.inference.settings import EditSettings

BUNDLED = {"bundled": True}
QUICK = ("--steps", "2", "--decoder-steps", "1")


@pytest.fixture
def photo(generate) -> Path:
    """In the folder where the command runs."""
    levels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((128, 128), Image.Resampling.BICUBIC).save("photo.png")
    return Path("photo.png")


def test_an_edit_is_recorded_and_made_again_bit_for_bit(generate, photo):
    words = ("--image", photo, "--strength", 0.5, "--decoder-strength", 0.7, "--seed", 3)
    first = generate("a hat", *QUICK, *words, "--out", "first.png", **BUNDLED)
    assert (first.code, first.out) == (0, ["first.png"]), first.error
    assert read_settings(Path("first.png")).edit == EditSettings(
        image="photo.png",
        image_sha256=hashlib.sha256(photo.read_bytes()).hexdigest(),
        strength=0.5,
        decoder_strength=0.7,
    )
    with Image.open("first.png") as image:
        assert (
            "Denoising strength: 0.5, Decoder denoising strength: 0.7" in image.text["parameters"]
        )
    again = generate("--from", "first.png", "--image", photo, "--out", "again.png", **BUNDLED)
    assert again.code == 0, again.error
    assert pixels_of("again.png") == pixels_of("first.png")
    assert read_settings(Path("again.png")) == read_settings(Path("first.png"))
    refused = generate("--from", "first.png", "--out", "none.png", **BUNDLED)
    assert refused.code == 2 and "made from 'photo.png'; pass --image" in refused.error
    words = ("--from", "first.png", "--image", photo, "--decoder-strength", 0)
    kept = generate(*words, "--out", "kept.png", **BUNDLED)
    assert kept.code == 0, f"the strength was not given here: {kept.error}"
    assert read_settings(Path("kept.png")).edit.strength == 0
    refused = generate(*words, "--strength", 0.5, "--out", "none.png", **BUNDLED)
    assert refused.code == 2 and "then strength 0.5 changes nothing" in refused.error
    Image.new("RGB", (128, 128)).save("other.png")
    other = generate("--from", "first.png", "--image", "other.png", "--out", "o.png", **BUNDLED)
    assert other.code == 0 and "is another file" in other.error
    assert pixels_of("o.png") != pixels_of("first.png")


def test_a_mask_is_recorded_and_made_again_and_keeps_what_is_black(generate, photo):
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    mask.save("mask.png")
    words = ("--image", photo, "--mask-image", "mask.png")
    first = generate("a hat", *QUICK, *words, "--padding-mask-crop", 8, "--out", "a.png", **BUNDLED)
    assert first.code == 0, first.error
    with Image.open("a.png") as made, Image.open(photo) as before:
        half = (0, 0, 64, 128)
        assert made.crop(half).tobytes() == before.crop(half).tobytes()
        assert made.size == before.size and made.tobytes() != before.tobytes()
    again = generate("--from", "a.png", *words, "--out", "again.png", **BUNDLED)
    assert again.code == 0 and pixels_of("again.png") == pixels_of("a.png"), again.error
    refused = generate("--from", "a.png", "--image", photo, "--out", "none.png", **BUNDLED)
    assert refused.code == 2 and "made from 'mask.png'; pass --mask-image" in refused.error


def test_strength_0_needs_no_prompt_and_text_to_image_records_no_edit(generate, photo):
    kept = generate("--image", photo, "--decoder-strength", 0, "--out", "kept.png")
    assert kept.code == 0, kept.error
    generate("a hat", *FEW, "--out", "hat.png")
    with Image.open("hat.png") as image:
        assert "edit" not in json.loads(image.text["wuerstchen"])
    assert read_settings(Path("hat.png")).edit is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "none.png"), "--image: 'none.png' cannot be read (No such file"),
        (("--image", "text.png"), "--image: 'text.png': Expected an image that decodes"),
        (("--image", "."), "expected a path outside --image ."),
        (("--strength", "0.5"), "--strength is about an image to start from; pass --image too"),
        (("--mask-image", "photo.png"), "--mask-image is about an image"),
        (("--image", "photo.png", "--strength", "2"), "strength must be between 0"),
        (("--image", "photo.png", "--padding-mask-crop", "-1"), "must be at least 0, found -1"),
        (("--image", "photo.png"), "has no compressor"),
        (("--image", "photo.png", "--out", "photo.png"), "--image"),
    ],
)
def test_what_cannot_work_is_one_sentence(generate, photo, words, message):
    Path("text.png").write_text("no image")
    before = photo.read_bytes()
    out = () if "--out" in words else ("--out", "out.png")
    done = generate("a hat", *words, *out)
    assert done.code == 2 and not done.out
    assert message in done.error and done.error.count("\n") == 1
    assert photo.read_bytes() == before and not Path("out.png").exists()


def test_reconstruct_prints_the_psnr_of_each_stage_and_the_paths(photo, monkeypatch, capfd):
    def reconstruct(*words: str) -> tuple[int, list[list[str]], str]:
        monkeypatch.setattr(sys, "argv", ["wuerstchen", "reconstruct", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, error = capfd.readouterr()
        return int(ended.value.code or 0), [line.split("\t") for line in out.splitlines()], error

    code, lines, error = reconstruct(str(photo), "--out", "made")
    assert code == 0, error
    assert [line[0] for line in lines] == ["Stage A", "compressor, Stage B and Stage A"]
    original = np.asarray(Image.open(photo)) / 255
    for _, decibels, path in lines:
        square = np.square(np.asarray(Image.open(path)) / 255 - original).mean()
        assert float(decibels.removesuffix(" dB")) == pytest.approx(
            -10 * np.log10(square), abs=0.02
        )
    words = (str(photo), "--out", "made", "--stage", "a", "--no-provenance")
    code, (line,), _ = reconstruct(*words)
    assert code == 0 and line[2] == "made/photo-stage-a-2.png", "no file is replaced"
    assert b"compositeWithTrained" in Path("made/photo-stage-a.png").read_bytes()
    assert b"digitalsourcetype" not in Path(line[2]).read_bytes()
    code, lines, error = reconstruct(str(photo), "none.png", "--out", "unmade")
    assert code == 2 and not lines and not Path("unmade").exists(), "all are checked before any"
    code, lines, error = reconstruct("none.png")
    assert code == 2 and not lines and "IMAGE: 'none.png' cannot be read" in error
