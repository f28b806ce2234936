"""Images of other models, of other versions and of none; options that cannot work."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from in_process import FEW, altered, pixels_of
from PIL import Image

from wuerstchen import cli
from wuerstchen.inference.png_metadata import read_settings


@pytest.fixture(scope="module")
def generated(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image, made by the command itself."""
    path = tmp_path_factory.mktemp("images") / "first.png"
    words = ["a hat", *FEW, "--seed", "5", "--model", str(model), "--out", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["wuerstchen", "generate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    return path


@pytest.fixture
def first(generated: Path, tmp_path: Path) -> Path:
    """Its copy in the folder where the command runs."""
    return Path(shutil.copy(generated, tmp_path)).relative_to(tmp_path)


def test_an_image_from_before_the_new_settings_opens_and_is_made_as_then(generate, first):
    new = set(read_settings(first).model_dump()) - {
        *("prompt", "negative_prompt", "seed", "width", "height", "model"),
        *("prior_timesteps", "prior_guidance_scale"),
        *("decoder_timesteps", "decoder_guidance_scale"),
    }
    assert "prior_sampler" in new and "batch" in new
    old = altered(first, "old.png", **dict.fromkeys(new))
    again = generate("--from", old, "--out", "again.png")
    assert again.code == 0 and "made by version unknown" in again.error
    assert pixels_of("again.png") == pixels_of(first), "by ddpm, in fp32 and alone"


def test_an_image_of_another_model_is_refused_unless_a_seed_requests_a_new_one(
    generate, first, model, tmp_path
):
    shutil.copytree(model, tmp_path / "other")
    info = json.loads((tmp_path / "other" / "wuerstchen.json").read_text())
    (tmp_path / "other" / "wuerstchen.json").write_text(json.dumps({**info, "name": "other"}))
    words = ("--from", first, "--model", "other", "--out", "again.png")
    refused = generate(*words)
    assert refused.code == 2 and len(refused.error.splitlines()) == 1
    assert "made by the model 'small', found 'other'; pass --model, or --seed" in refused.error
    assert generate(*words, "--seed", 5).code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--from", "nowhere.png"), "found 'nowhere.png' (No such file or directory)"),
        (("--from", "notes.png"), "found 'notes.png' (no image)"),
        (("--from", "bare.png"), "bare.png: expected an image with its settings"),
        (("--from", "sampler.png"), "The sampler of Stage C must be one of ddpm, ddim"),
        (("--from", "times.png"), "prior_timesteps must fall"),
        (("--from", "dtype.png"), "dtype.png: the settings in it cannot be used: dtype: "),
        (("--from", "size.png"), "width must be a positive multiple of 128 pixels, found 100"),
        (("--from", "seed.png"), "seed must be a whole number between 0 and"),
        ((), "Expected a PROMPT, --image or --from IMAGE"),
        (
            ("x", "--sampler", "euler"),
            "The sampler of Stage C must be one of ddpm, ddim, ddim-published",
        ),
        (("x", "--decoder-sampler", "euler"), "The sampler of Stage B must be one of ddpm"),
        (
            ("x", "--spacing", "karras"),
            "The spacing of Stage C must be one of time, log_snr, tuned",
        ),
        (("x", "--seed", "-5"), "seed must be a whole number between 0 and"),
        (("x", "--seed", str(2**63 - 2), "--num-images", "9"), "between 0 and 9223372036854775799"),
        (
            ("x", "--guidance-interval", "0.8:0.9", "--steps", "2"),
            "must contain at least one of its step",
        ),
        (("x", "--spacing", "published", "--steps", "7"), "29 steps, found 7"),
        (("x", "--guidance-interval", "0.3"), "must be two times such as 0.3:1, found '0.3'"),
        (("x", "--guidance-interval", "a:b"), "must be two times such as 0.3:1, found 'a:b'"),
        (("x", "--guidance-interval", "0.8:0.2"), "the smaller one first, found 0.8 and 0.2"),
        (("x", "--guidance-rescale", "2"), "rescale of guidance must be between 0 and 1"),
        (("x", "--guidance-end", "nan"), "must be a finite number, found nan"),
        (("x", "--dtype", "fp8"), "--dtype must be one of fp32, bf16, fp16, found 'fp8'"),
        (("x", "--lora", "nowhere.safetensors"), "nowhere.safetensors"),
        (("x", "--lora", "notes.png=much"), "much"),
        (("x", "--prior", "nowhere"), "found no folder at 'nowhere'"),
        (("x", "--variant", "fp99"), "fp99"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(generate, first, words, sentence):
    Path("notes.png").write_text("not an image")
    Image.new("RGB", (8, 8)).save("bare.png")
    altered(first, "sampler.png", prior_sampler="magic")
    altered(first, "times.png", prior_timesteps=[0.0, 1.0])
    altered(first, "dtype.png", dtype="fp8")
    altered(first, "size.png", width=100)
    altered(first, "seed.png", seed=-7, batch=None)
    before = sorted(Path().iterdir())
    done = generate(*words)
    assert done.code == 2 and done.out == []
    (line,) = done.error.strip().splitlines()
    assert sentence in line
    assert sorted(Path().iterdir()) == before


HUGE = 10**30
SEED = {"seed": 3}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({**SEED, "batch": [0, 10**9]}, "a batch has 1 to 64 images, found 1000000000"),
        ({**SEED, "batch": [0, 100_000]}, "a batch has 1 to 64 images, found 100000"),
        ({**SEED, "batch": [3, 0]}, "a batch has 1 to 64 images, found 0"),
        ({**SEED, "batch": [-2, 8]}, "seeds of a batch are from 0"),
        ({"seed": 2**63 - 1, "batch": [2**63 - 2, 8]}, "seeds of a batch are from 0"),
        ({**SEED, "batch": ["3", "1"]}, "batch.0: "),
        ({**SEED, "batch": None, "seed": HUGE}, "seed must be a whole number between 0 and"),
        ({"seed": "3"}, "seed: "),
        ({"seed": 3.5}, "seed: "),
        ({"seed": True}, "seed: "),
        ({"width": HUGE}, "width must be at most 1000000000 pixels"),
        ({"width": "128"}, "width: "),
        ({"height": -128}, "height must be a positive multiple of 128 pixels, found -128"),
        (
            {"prior_timesteps": [1 - k / 20_000 for k in range(20_001)]},
            "at most 10000, found 20000",
        ),
        ({"prior_timesteps": [1.0] + [0.5] * 20_000 + [0.0]}, "characters left out"),
        ({"decoder_timesteps": ["1", "0"]}, "decoder_timesteps.0: "),
        ({"prior_guidance_scale": float("nan")}, "not finite"),
        ({"prior_guidance_scale": float("inf")}, "not finite"),
        ({"prior_guidance_scale": "4"}, "prior_guidance_scale: "),
        ({"prior_guidance_interval": [0.2, 5.0]}, "two times between 0 (data) and 1 (noise)"),
        ({"prior_guidance_rescale": 7.0}, "rescale of guidance must be between 0 and 1"),
        ({"prior_sampler": "x" * 100_000}, "characters left out"),
        ({"model": "y" * 100_000}, "characters left out"),
        ({"loras": {"z" * 100_000: 1.0}}, "characters left out"),
        ({"loras": {"a": "much"}}, "loras.a: "),
        ({"prompt": ["a"]}, "prompt: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_of_an_image_are_bounded(generate, first, changes, sentence):
    done = generate("--from", altered(first, "odd.png", **changes))
    assert done.code == 2 and done.out == []
    (line,) = done.error.strip().splitlines()
    assert sentence in line and len(line) < 700, line


def test_unknown_settings_of_an_image_are_named(generate, first):
    done = generate("--from", altered(first, "odd.png", wobble=3), "--out", "again.png")
    assert done.code == 0 and "Unknown settings of the image are not used: wobble." in done.error


def test_a_billion_images_are_refused_before_they_are_counted_out(generate):
    done = generate("x", "--num-images", 10**9)
    assert done.code == 2 and "must be at most 1000000, found 1000000000" in done.error


def test_a_warning_about_a_long_prompt_is_short(generate):
    words = ("--out", "long.png", "--steps", 1, "--decoder-steps", 1)
    done = generate("word " * 20_000, *words)
    assert done.code == 0
    assert "characters left out" in done.error and len(done.error) < 3000
