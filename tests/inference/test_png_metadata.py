"""Settings in a PNG: what is written is read, and what cannot be used is one sentence."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from wuerstchen import __version__
from wuerstchen.errors import ConfigError, UnusedWarning
from wuerstchen.inference.png_metadata import OWN, parameters, read_settings, save_png
from wuerstchen.inference.settings import GenerationSettings

NEEDED: dict[str, object] = {
    "prompt": 'a hat,\nñ: 果 "quoted"',
    "negative_prompt": "",
    "seed": 5,
    "width": 256,
    "height": 128,
    "prior_timesteps": [1.0, 0.1 + 0.2, 0.0],
    "prior_guidance_scale": 2.5,
    "decoder_timesteps": [1.0, 0.0],
    "decoder_guidance_scale": 0.0,
    "model": "small",
}
"""Keys of the first version of these files."""

ALL = {
    **NEEDED,
    "prior_sampler": "dpm++2m",
    "prior_guidance_interval": (0.25, 0.9),
    "prior_guidance_rescale": 0.7,
    "prior_guidance_end": 1.5,
    "decoder_sampler": "heun",
    "dtype": "bf16",
    "loras": {"style.safetensors": 0.8},
    "batch": (3, 4),
}


def image() -> Image.Image:
    return Image.new("RGB", (8, 8), (10, 20, 30))


def with_chunk(path: Path, text: str) -> Path:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(OWN, text)
    image().save(path, pnginfo=chunks)
    return path


def settings_of(folder: Path, values: dict[str, object]) -> GenerationSettings:
    return read_settings(with_chunk(folder / "settings.png", json.dumps(values)))


@pytest.mark.parametrize("values", [NEEDED, ALL])
def test_what_is_written_is_read_to_the_last_bit(tmp_path, values):
    settings = settings_of(tmp_path, values)
    save_png(tmp_path / "a.png", image(), settings)
    found = read_settings(tmp_path / "a.png")
    assert found == settings.model_copy(update={"version": __version__})
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.tobytes() == image().tobytes()


def test_an_image_of_the_first_version_opens_with_the_behaviour_of_that_version(tmp_path):
    old = {"version": "1.0", **NEEDED, "prior_num_inference_steps": 2, "num_inference_steps": 1}
    found = read_settings(with_chunk(tmp_path / "old.png", json.dumps(old)))
    assert (found.prior.sampler, found.decoder.sampler, found.dtype) == ("ddpm", "ddpm", "fp32")
    assert found.prior.guidance_interval == (0.0, 1.0) and found.prior.guidance_rescale == 0.0
    assert (found.batch, found.loras, found.version) == (None, {}, "1.0")


def test_an_image_of_a_later_version_with_more_keys_opens(tmp_path):
    path = with_chunk(tmp_path / "later.png", json.dumps({**ALL, "weather": "fair"}))
    with pytest.warns(UnusedWarning, match="not used: weather"):
        assert read_settings(path).seed == 5


def test_the_line_for_viewers_names_the_samplers(tmp_path):
    line = parameters(settings_of(tmp_path, ALL)).splitlines()[-1]
    assert "Steps: 2, Sampler: dpm++2m, CFG scale: 2.5, Seed: 5, Size: 256x128" in line
    assert "Decoder sampler: heun" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": "5"}, "seed: "),
        ({"prompt": None}, "prompt: "),
        ({"prior_timesteps": "all"}, "prior_timesteps: "),
        ({"prior_guidance_interval": [0.5]}, "prior_guidance_interval"),
        ({"dtype": "fp8"}, "dtype: .*'fp32', 'bf16' or 'fp16'"),
        ({"batch": [7]}, "batch"),
        ({"batch": [6, 4]}, "seed 5 is not of the batch 6, 4"),
        ({"batch": [0, 5]}, "seed 5 is not of the batch 0, 5"),
        ({"loras": {"a": "much"}}, r"loras\.a: "),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(tmp_path, changes, words):
    path = with_chunk(tmp_path / "a.png", json.dumps({**ALL, **changes}))
    with pytest.raises(ConfigError, match=words) as caught:
        read_settings(path)
    assert str(caught.value).startswith(f"{path}: the settings in it cannot be used: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", json.dumps({"prompt": "x"}), "\x00"])
def test_a_chunk_that_is_something_else_is_one_sentence(tmp_path, text):
    with pytest.raises(ConfigError, match=r"cannot be used|found none") as caught:
        read_settings(with_chunk(tmp_path / "a.png", text))
    assert "\n" not in str(caught.value)


def test_files_without_settings_are_one_sentence(tmp_path):
    image().save(tmp_path / "bare.png")
    image().save(tmp_path / "photo.jpg")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    for name, words in (
        ("bare.png", "found none"),
        ("photo.jpg", "found none"),
        ("notes.png", "no image"),
        ("empty.png", "no image"),
        ("nowhere.png", "No such file"),
        (".", "directory"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            read_settings(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_image_truncated_anywhere_opens_or_is_one_sentence(tmp_path):
    save_png(tmp_path / "whole.png", image(), settings_of(tmp_path, ALL))
    content = (tmp_path / "whole.png").read_bytes()
    refused = 0
    for length in range(0, len(content), 23):
        (tmp_path / "cut.png").write_bytes(content[:length])
        try:
            assert read_settings(tmp_path / "cut.png").seed == 5
        except ConfigError:
            refused += 1
    assert refused > len(content) // 46, "the settings are after the first half"


def test_a_chunk_that_unpacks_to_more_than_fits_is_one_sentence(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(OWN, " " * 10**7, zip=True)
    content = io.BytesIO()
    image().save(content, format="PNG", pnginfo=chunks)
    (tmp_path / "bomb.png").write_bytes(content.getvalue())
    with pytest.raises(ConfigError, match=r"bomb\.png"):
        read_settings(tmp_path / "bomb.png")
