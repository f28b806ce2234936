"""`wuerstchen generate`: its files, its two streams, its exit code.

The command runs in this process, except where the process is the point.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import FEW
from PIL import Image

import wuerstchen
from wuerstchen.cli.generate import image_path

COMMAND = str(Path(sys.executable).with_name("wuerstchen"))
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


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
    done = subprocess.run(
        [
            *(COMMAND, "generate", "A red  apple, really!", "--model", str(model), *FEW),
            *("--num-images", "2", "--seed", "7", "--size", "256x128"),
        ],
        cwd=tmp_path,
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
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


def test_the_bundled_model_is_used_where_no_model_is_named(generate):
    prompt = "a 3D red heart on a white background"
    done = generate(prompt, "--seed", 1, "--out", "heart.png", bundled=True)
    assert (done.code, done.out) == (0, ["heart.png"]), done.error
    with Image.open("heart.png") as image:
        assert min(image.size) >= 128
        assert np.asarray(image).std() > 10, "an even colour is no image"
        assert "Model: stickers" in image.text["parameters"]


def test_the_image_records_how_it_was_made_and_that_makes_it_again(generate, model, tmp_path):
    done = generate(
        "a hat,\nñ: 果",
        *("--negative-prompt", "two, birds", "--seed", 5, "--steps", 3),
        *("--decoder-steps", 2, "--guidance", 2.5, "--out", "one.png"),
    )
    assert done.code == 0, done.error
    with Image.open("one.png") as image:
        text = dict(image.text)
        pixels = np.asarray(image)
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
    assert np.abs(np.asarray(again).astype(int) - pixels).max() <= 1


def test_no_metadata_leaves_the_image_without_text(generate):
    Path("bare.png").write_text("old")
    refused = generate("a hat", *FEW, "--no-metadata", "--out", "bare.png")
    assert refused.code == 2 and "pass --overwrite" in refused.error
    assert Path("bare.png").read_text() == "old"
    done = generate(
        "a hat", *FEW, "--no-metadata", "--no-provenance", "--out", "bare.png", "--overwrite"
    )
    assert done.code == 0, done.error
    with Image.open("bare.png") as image:
        assert image.text == {}, "and the old file is replaced, since --out names it"


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


def test_more_images_than_a_batch_are_those_of_the_seeds_that_follow(generate):
    steps = ("--steps", 1, "--decoder-steps", 1)
    done = generate("", "--seed", 3, *steps, "--num-images", 10, "--out", "many/deep/")
    assert done.out == [f"many/deep/image-{seed}.png" for seed in range(3, 13)]


def test_a_long_prompt_is_one_warning_and_still_an_image(generate):
    long = "a red apple a red apple a red apple a a yellow one"
    done = generate(long, *FEW, "--out", "long.png")
    assert done.code == 0 and Path("long.png").exists()
    warning, *rest = done.error.splitlines()
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
def test_bad_input_is_one_sentence_and_exit_code_2(generate, words, sentence):
    Path("file").write_text("in the way")
    done = generate(*words)
    assert done.code == 2 and done.out == []
    (line,) = done.error.strip().splitlines()
    assert sentence in line
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_a_damaged_model_folder_is_one_sentence_and_exit_code_2(generate, model):
    shutil.copytree(model, "bad")
    (weights,) = Path("bad/decoder").glob("*.safetensors")
    os.truncate(weights, 1000)
    done = generate("x", "--model", "bad")
    assert done.code == 2 and done.out == []
    (line,) = done.error.strip().splitlines()
    assert str(weights) in line


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(model, tmp_path):
    (tmp_path / "one.png").write_text("old")
    # 4 KiB: what a full disk does
    script = 'ulimit -f 4; exec "$0" "$@"'
    words = ("generate", "x", *FEW, "--model", str(model), "--out", "one.png", "--overwrite")
    done = subprocess.run(
        ["bash", "-c", script, COMMAND, *words],
        cwd=tmp_path,
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "one.png could not be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    assert (tmp_path / "one.png").read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_accepts_no_files_is_one_sentence(generate):
    done = generate("x", *FEW, "--out", "/proc/")
    assert done.code == 2 and done.out == []
    assert re.search("could not be written|write-protected", done.error.splitlines()[-1])
    assert "Traceback" not in done.error


def test_help_version_and_usage_errors_answer_without_torch(tmp_path):
    code = (
        "import sys, wuerstchen.cli as cli\n"
        "for words in (['--help'], ['generate', '--help'], ['--version'], ['generate'],\n"
        "              ['generate', 'x', '--sead', '3'], ['paint']):\n"
        "    sys.argv[1:] = words\n"
        "    try: cli.main()\n"
        "    except SystemExit as ended: print('exit', ended.code or 0)\n"
        "    print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert lines.count("False False") == 6
    assert [line for line in lines if line.startswith("exit")] == ["exit 0"] * 3 + ["exit 2"] * 3
    assert f"wuerstchen {wuerstchen.__version__}" in lines and "generate" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_module_is_the_same_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "wuerstchen", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"wuerstchen {wuerstchen.__version__}\n"
