"""`wuerstchen generate` as users meet it: a process, its files, its two streams, its exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models_small import small_pipeline
from PIL import Image

import wuerstchen
from wuerstchen.cli.generate import image_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret-place") / "small-model"
    small_pipeline().save_pretrained(folder)
    return folder


def run(*words: object, cwd: Path, shell: str = "") -> subprocess.CompletedProcess[str]:
    """The installed command, offline; `shell` is run before it."""
    command = str(Path(sys.executable).with_name("wuerstchen"))
    script = f'{shell} exec "$0" "$@"'
    return subprocess.run(
        ["bash", "-c", script, command, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def a1111_fields(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and pairs, by the rules that readers of the format share."""
    *lines, last = text.strip().split("\n")
    found = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(found) >= 3, "with fewer pairs readers take the line for a part of the prompt"
    fields = {key: json.loads(value) if value[:1] == '"' else value for key, value in found}
    at = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), None)
    wanted = lines[:at]
    unwanted = [] if at is None else lines[at:]
    return (
        "\n".join(wanted),
        "\n".join(unwanted).removeprefix("Negative prompt:").strip(),
        fields,
    )


def test_images_are_written_and_their_paths_alone_are_on_stdout(model, tmp_path):
    done = run(
        "generate",
        "A red  apple, really!",
        *("--model", model, "--num-images", 2, "--seed", 7, "--size", "256x128"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    names = ["a-red-apple-really-7.png", "a-red-apple-really-8.png"]
    assert done.stdout.splitlines() == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for stage in ("Stage C", "Stage B", "Stage A"):
        assert stage in done.stderr
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 128))


def test_the_image_says_how_it_was_made_and_that_makes_it_again(model, tmp_path):
    done = run(
        "generate",
        "a hat,\nñ: 果",
        *("--model", model, "--negative-prompt", "two, birds", "--seed", 5, "--steps", 3),
        *("--decoder-steps", 2, "--guidance", 2.5, "--out", "one.png"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "one.png") as image:
        text = dict(image.text)
        drawn = np.asarray(image)
    assert str(model.parent) not in repr(text) and str(tmp_path) not in repr(text)

    own = json.loads(text["wuerstchen"])
    assert own["version"] == wuerstchen.__version__ and own["model"] == "small"
    assert own["prompt"] == "a hat,\nñ: 果" and own["negative_prompt"] == "two, birds"

    prompt, negative, fields = a1111_fields(text["parameters"])
    assert (prompt, negative) == ("a hat,\nñ: 果", "two, birds")
    assert fields["Size"] == "128x128" and fields["Model"] == "small"
    assert (fields["Seed"], fields["Steps"], fields["CFG scale"]) == ("5", "3", "2.5")

    (again,) = wuerstchen.Pipeline.from_pretrained(model)(
        own["prompt"],
        negative_prompt=own["negative_prompt"],
        width=own["width"],
        height=own["height"],
        seed=own["seed"],
        prior_num_inference_steps=own["prior_num_inference_steps"],
        num_inference_steps=own["num_inference_steps"],
        prior_guidance_scale=own["prior_guidance_scale"],
        decoder_guidance_scale=own["decoder_guidance_scale"],
    ).images
    assert np.abs(np.asarray(again).astype(int) - drawn).max() <= 1


def test_no_metadata_leaves_the_image_without_a_word(model, tmp_path):
    (tmp_path / "bare.png").write_text("old")
    done = run(
        "generate", "a hat", "--model", model, "--no-metadata", "--out", "bare.png", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "bare.png") as image:
        assert image.text == {}, "and what stood there is replaced, since --out names it"


@pytest.mark.parametrize(
    ("out", "several", "expected"),
    [
        (None, False, "a-hat-1.png"),
        ("own.png", False, "own.png"),
        ("own.png", True, "own-1-2.png"),
        ("images", False, "images/a-hat-1-2.png"),
        ("new/deep/", False, "new/deep/a-hat-1.png"),
    ],
)
def test_a_file_that_out_does_not_name_is_never_replaced(
    tmp_path, monkeypatch, out, several, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("own.png", "own-1.png", "images/a-hat-1.png"):
        (tmp_path / name).write_text("old")
    assert image_path(out, "A hat!", 1, several=several) == Path(expected)


def test_more_images_than_a_batch_are_those_of_the_seeds_that_follow(model, tmp_path):
    done = run(
        *("generate", "", "--model", model, "--seed", 3, "--steps", 1, "--decoder-steps", 1),
        *("--num-images", 10, "--out", "many/deep/"),
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == [f"many/deep/image-{seed}.png" for seed in range(3, 13)]


def test_a_long_prompt_is_one_warning_and_still_a_image(model, tmp_path):
    done = run(
        *("generate", "a red apple a red apple a red apple a a yellow one"),
        *("--model", model, "--out", "long.png"),
        cwd=tmp_path,
    )
    assert done.returncode == 0 and (tmp_path / "long.png").exists()
    warning, *rest = done.stderr.splitlines()
    assert warning.startswith("Warning: The prompt 'a red apple") and "'a yellow one'" in warning
    assert not [line for line in rest if "arning" in line]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["x", "--model", "nowhere"], "found no folder at 'nowhere'"),
        (["x", "--size", "100"], "height must be a positive multiple of 128 pixels, found 100"),
        (["x", "--size", "big"], "--size must look like 512x768 (width x height), found 'big'"),
        (["x", "--size", "896000000"], "memory for images of 896000000 x 896000000 pixels, 1 at"),
        (["x", "--size", "1" + 9 * "0"], "--size must look like 512x768"),
        (["x", "--steps", "0"], "--steps must be at least 1, found 0."),
        (["x", "--decoder-steps", "-3"], "--decoder-steps must be at least 1, found -3."),
        (["x", "--num-images", "0"], "--num-images must be at least 1, found 0."),
        (["x", "--guidance", "nan"], "guidance of Stage C must be a finite number, found nan"),
        (["a\udcffb"], "A prompt must be UTF-8 text"),  # as Python passes on the byte FF
        (["x", "--out", "a.jpg"], "must be a file that ends in .png, or a folder"),
        (["x", "--out", "file/x.png"], "found 'file', which is a file; choose another --out"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(model, tmp_path, words, sentence):
    (tmp_path / "file").write_text("in the way")
    given = [] if "--model" in words else ["--model", model]
    done = run("generate", *words, *given, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert sentence in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_model_folder_is_one_sentence_and_exit_code_2(model, tmp_path):
    bad = tmp_path / "bad"
    subprocess.run(["cp", "-r", model, bad], check=True)
    (weights,) = (bad / "decoder").glob("*.safetensors")
    os.truncate(weights, 1000)
    done = run("generate", "x", "--model", bad, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert str(weights) in line


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(model, tmp_path):
    (tmp_path / "one.png").write_text("old")
    done = run(
        *("generate", "x", "--model", model, "--out", "one.png"),
        cwd=tmp_path,
        shell="ulimit -f 4;",  # 4 KiB: what a disk does that has no more room
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "one.png could not be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    assert (tmp_path / "one.png").read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_takes_no_files_is_one_sentence(model, tmp_path):
    done = run("generate", "x", "--model", model, "--out", "/proc/", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert re.search("could not be written|write-protected", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["generate"], ["generate", "x", "--sead", "3"], ["paint"]])
def test_usage_errors_exit_with_2_and_without_a_traceback(tmp_path, words):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_help_and_version_answer_without_torch(tmp_path):
    code = (
        "import sys, wuerstchen.cli as cli\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    for words in (["--help"], ["generate", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1] == "False False"
        wanted = f"wuerstchen {wuerstchen.__version__}" if "--version" in words else "generate"
        assert wanted in done.stdout


def test_the_module_is_the_same_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "wuerstchen", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"wuerstchen {wuerstchen.__version__}\n"
