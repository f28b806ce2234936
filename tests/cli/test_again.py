"""`wuerstchen generate --from`: images generated again; and options that reach the image.

The command runs in this process, except where the process is the point.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from in_process import FEW, pixels_of
from models_small import small_pipeline
from PIL import Image
from small_lora import write_lora

from wuerstchen.inference.png_metadata import read_settings


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--sampler", "dpm++2m-sde", "--spacing", "tuned", "--decoder-sampler", "euler-ancestral"),
        ("--sampler", "heun", "--guidance-interval", "0.3:0.8", "--guidance-rescale", "0.5"),
        (
            "--guidance",
            "6",
            "--guidance-end",
            "1",
            "--negative-prompt",
            "two birds",
            "--seed",
            "-1",
        ),
        ("--dtype", "bf16", "--size", "256x128"),
        ("--dtype", "fp16", "--low-memory", "--seed", "3"),
    ],
)
def test_an_image_is_made_again_bit_for_bit(generate, words):
    first = generate("a red apple", *FEW, *words, "--out", "first.png")
    assert first.code == 0, first.error
    again = generate("--from", "first.png", "--out", "again.png")
    assert (again.code, again.out) == (0, ["again.png"]), again.error
    assert pixels_of("again.png") == pixels_of("first.png")
    assert read_settings(Path("again.png")) == read_settings(Path("first.png"))
    other = generate("--from", "first.png", "--seed", 12345, "--out", "other.png")
    assert other.code == 0 and pixels_of("other.png") != pixels_of("first.png")


def test_the_third_of_four_images_is_made_again_bit_for_bit_and_alone(generate):
    batch = generate("a hat", *FEW, "--num-images", 4, "--seed", 7, "--out", "many/")
    assert batch.out == [f"many/a-hat-{seed}.png" for seed in (7, 8, 9, 10)]
    again = generate("--from", "many/a-hat-9.png", "--out", "again.png")
    assert again.out == ["again.png"]
    assert pixels_of("again.png") == pixels_of("many/a-hat-9.png")
    assert read_settings(Path("again.png")).batch == (7, 4)
    twice = generate("--from", "again.png", "--out", "twice.png")
    assert twice.code == 0 and pixels_of("twice.png") == pixels_of("again.png")


def test_an_image_of_a_later_batch_is_made_again(generate):
    steps = ("--steps", 1, "--decoder-steps", 1)
    generate("", *steps, "--num-images", 10, "--seed", 3, "--out", "many/")
    assert read_settings(Path("many/image-12.png")).batch == (11, 2)
    generate("--from", "many/image-12.png", "--out", "again.png")
    assert pixels_of("again.png") == pixels_of("many/image-12.png")


def test_it_is_made_again_by_another_process(generate, model):
    """As users do: nothing may depend on what this process did before."""
    generate("a hat", *FEW, "--num-images", "2", "--seed", "4", "--out", "first.png")
    command = str(Path(sys.executable).with_name("wuerstchen"))
    words = ("--from", "first-5.png", "--model", str(model), "--out", "again.png")
    subprocess.run([command, "generate", *words], check=True, capture_output=True)
    assert pixels_of("again.png") == pixels_of("first-5.png")


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("a green hat",), {"prompt": "a green hat"}),
        (("--negative-prompt", "birds"), {"negative_prompt": "birds"}),
        (("--sampler", "heun"), {"prior_sampler": "heun"}),
        (("--decoder-sampler", "ddim"), {"decoder_sampler": "ddim"}),
        (("--guidance", "1.5"), {"prior_guidance_scale": 1.5}),
        (("--guidance-interval", "0.5:1"), {"prior_guidance_interval": (0.5, 1.0)}),
        (("--guidance-rescale", "0.5"), {"prior_guidance_rescale": 0.5}),
        (("--guidance-end", "2"), {"prior_guidance_end": 2.0}),
        (("--steps", "4"), {"prior_timesteps": [1.0, 0.75, 0.5, 0.25, 0.0]}),
        (("--decoder-steps", "1"), {"decoder_timesteps": [1.0, 0.0]}),
        (("--decoder-guidance", "1.5"), {"decoder_guidance_scale": 1.5}),
        (("--decoder-spacing", "time"), {"decoder_timesteps": [1.0, 0.5, 0.0]}),
        (("--spacing", "time"), {"prior_timesteps": [1.0, 0.5, 0.0]}),
        (("--size", "128x256"), {"width": 128, "height": 256}),
        (("--seed", "9"), {"seed": 9, "batch": (9, 1)}),
        (("--dtype", "bf16"), {"dtype": "bf16"}),
    ],
)
def test_an_option_replaces_one_setting_and_leaves_the_others(generate, words, changes):
    first = ("a hat", *FEW, "--spacing", "log_snr", "--sampler", "dpm++2m", "--guidance", "3")
    first += ("--decoder-spacing", "log_snr")
    assert generate(*first, "--seed", 5, "--out", "first.png").code == 0
    again = generate("--from", "first.png", *words, "--out", "again.png")
    assert again.code == 0, again.error
    expected = read_settings(Path("first.png")).model_dump() | changes
    assert read_settings(Path("again.png")).model_dump() == expected
    assert pixels_of("again.png") != pixels_of("first.png")


def test_every_option_reaches_the_settings_in_the_image(generate):
    done = generate(
        *("a hat", "--steps", 3, "--sampler", "heun", "--spacing", "log_snr", "--guidance", 3),
        *("--guidance-interval", "0.2:0.9", "--guidance-rescale", 0.4, "--guidance-end", 2),
        *("--decoder-steps", 2, "--decoder-sampler", "dpm++2m", "--decoder-spacing", "time"),
        *("--decoder-guidance", 1.2, "--seed", 1, "--out", "a.png"),
    )
    assert done.code == 0, done.error
    found = read_settings(Path("a.png"))
    assert (found.prior.sampler, found.decoder.sampler) == ("heun", "dpm++2m")
    assert (found.prior.guidance_scale, found.prior.guidance_end) == (3.0, 2.0)
    assert found.prior.guidance_interval == (0.2, 0.9) and found.prior.guidance_rescale == 0.4
    assert (len(found.prior.timesteps), len(found.decoder.timesteps)) == (4, 3)
    assert (found.decoder.timesteps, found.decoder.guidance_scale) == ([1.0, 0.5, 0.0], 1.2)
    with Image.open("a.png") as image:
        assert "Sampler: heun" in image.text["parameters"]


def test_low_memory_gives_the_same_image(generate):
    for words in ((), ("--low-memory",)):
        name = "frugal.png" if words else "plain.png"
        assert generate("a hat", *FEW, "--seed", 5, *words, "--out", name).code == 0
    assert pixels_of("frugal.png") == pixels_of("plain.png")
    assert generate("--from", "plain.png", "--low-memory", "--out", "again.png").code == 0
    assert pixels_of("again.png") == pixels_of("plain.png")


def test_a_lora_is_recorded_by_name_and_weight_and_required_again(generate, tmp_path):
    write_lora(tmp_path / "secret" / "my.style.safetensors", small_pipeline())
    lora = ("--lora", "secret/my.style.safetensors=0.5")
    generate("a hat", *FEW, "--seed", 5, "--out", "plain.png")
    first = generate("a hat", *FEW, "--seed", 5, *lora, "--out", "first.png")
    assert first.code == 0, first.error
    assert pixels_of("first.png") != pixels_of("plain.png")
    assert read_settings(Path("first.png")).loras == {"my.style.safetensors": 0.5}
    assert b"secret" not in Path("first.png").read_bytes(), "it contains no path of the machine"
    assert generate("--from", "first.png", *lora, "--out", "again.png").code == 0
    assert pixels_of("again.png") == pixels_of("first.png")
    for words in ((), ("--lora", "secret/my.style.safetensors=0.6")):
        without = generate("--from", "first.png", *words, "--out", "no.png")
        assert without.code == 2 and len(without.error.splitlines()) == 1
        assert "with the LoRAs {'my.style.safetensors': 0.5}, found" in without.error
    with_one = generate("--from", "plain.png", *lora, "--out", "no.png")
    assert with_one.code == 2 and "with the LoRAs none, found {'my.style" in with_one.error
    assert not Path("no.png").exists()
