"""`wuerstchen distance`: figures of known sets, the protocol, resuming, and what is refused."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wuerstchen import weights
from wuerstchen.cli import main
from wuerstchen.config import DataConfig
from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances import networks
from wuerstchen.evaluation.distances.drawing import open_drawing
from wuerstchen.evaluation.distances.images import DrawnImages, StoredImages, prompts_digest
from wuerstchen.evaluation.distances.measure import measure
from wuerstchen.evaluation.distances.networks import FeatureNetwork
from wuerstchen.evaluation.distances.preparation import Preparation
from wuerstchen.evaluation.inputs import open_pipeline


class Pixels:
    """In place of a network: four colours of the image, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return F.adaptive_avg_pool2d(images, 2).flatten(1)


def network(pixels: Pixels | None = None) -> FeatureNetwork:
    return FeatureNetwork("pixels", "0", 8, "mean of quarters", "none", pixels or Pixels())


def photos(folder: Path, count: int, shift: int = 0, side: int = 16, seed: int = 0) -> Path:
    """Images of noise, `shift` brighter."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        pixels = rng.integers(50, 150, (side, side, 3), np.uint8) + np.uint8(shift)
        Image.fromarray(pixels).save(folder / f"{k:03}.png")
    return folder


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """What the command opens under the name of the default network."""
    pixels = Pixels()
    monkeypatch.setattr(networks, "_lite0", lambda device: network(pixels))
    return pixels


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wuerstchen", "distance", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_set_is_at_no_distance_of_itself_and_a_brighter_one_at_its_shift(tmp_path: Path) -> None:
    real = photos(tmp_path / "real", 30)
    brighter = photos(tmp_path / "brighter", 30, shift=51)  # 0.2 in each of twelve features
    same, other = (
        measure(
            StoredImages(str(real)), StoredImages(str(drawn)), network(), Preparation(), about={}
        ).record.figures
        for drawn in (real, brighter)
    )
    assert same["frechet"].value == pytest.approx(0, abs=1e-6)
    assert same["mind"].value == 0
    assert same["precision"].value == same["coverage"].value == 1
    assert other["frechet"].value == pytest.approx(12 * 0.2**2, rel=1e-4)
    assert other["mind"].value == pytest.approx(12 * 0.2**2, rel=0.1)
    assert other["precision"].value == other["coverage"].value == 0


def test_the_command_prints_figures_and_writes_them_with_their_protocol(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stand_in: Pixels,
) -> None:
    real, drawn = photos(tmp_path / "real", 24), photos(tmp_path / "drawn", 40, seed=1)
    out = tmp_path / "out"
    assert run(monkeypatch, real, drawn, "--count", 20, "--size", 8, "--out", out) == 0
    printed = capsys.readouterr()
    written = json.loads((out / "distance.json").read_text(encoding="utf-8"))
    assert f"{written['figures']['frechet']['value']:.5g}" in printed.out
    assert "20 real and 20 drawn images, pixels (mean of quarters)" in printed.out
    card = written["protocol"]
    assert (card["n_real"], card["n_drawn"], card["kid_subset_size"]) == (20, 20, 10)
    assert (card["features"], card["size"], card["crop"]) == ("pixels", 8, "square")
    assert card["filter"] == "bicubic, antialiased, of floats"
    assert card["size_filter"] == "bicubic, antialiased, in 8 bits"
    assert card["normalisation"] == "none"
    assert card["real_image_sizes"] == "16 x 16"
    assert set(written["versions"]) >= {"wuerstchen", "torch", "pillow"}
    assert set(written["figures"]) == {
        *("frechet", "kid", "mind", "precision", "recall", "density", "coverage")
    }
    assert written["drawn"]["source"] == str(drawn)


def test_few_images_and_other_sizes_are_remarked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stand_in: Pixels,
) -> None:
    real, drawn = photos(tmp_path / "real", 8), photos(tmp_path / "drawn", 8, side=24)
    assert run(monkeypatch, real, drawn, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().err
    assert "8 images are too few for a covariance of 12 features, which takes 13" in told
    assert "The real images have 16 x 16 pixels and the drawn ones 24 x 24" in told


def test_an_interrupted_measurement_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wuerstchen.evaluation.distances.features.CHUNK", 10)
    monkeypatch.setattr("wuerstchen.evaluation.distances.features.BATCH", 5)
    real, drawn = photos(tmp_path / "real", 25), photos(tmp_path / "drawn", 25, seed=1)

    class Killed(Pixels):
        def __call__(self, images: Tensor) -> Tensor:
            if self.asked == 35:
                raise KeyboardInterrupt
            return super().__call__(images)

    def measured(pixels: Pixels, keep: Path | None) -> str:
        sets = (StoredImages(str(real)), StoredImages(str(drawn)))
        found = measure(*sets, network(pixels), Preparation(), about={}, keep=keep).record
        return json.dumps(json.loads(found.to_json()) | {"seconds": None})

    keep = tmp_path / "keep"
    with pytest.raises(KeyboardInterrupt):
        measured(Killed(), keep)
    rest = Pixels()
    assert measured(rest, keep) == measured(Pixels(), None)
    assert rest.asked == 50 - 35
    again = Pixels()
    measured(again, keep)
    assert again.asked == 0
    (real / "000.png").write_bytes((real / "001.png").read_bytes())
    changed = Pixels()
    measured(changed, keep)
    assert changed.asked == 25  # of the set with another content, but not of the other one


@pytest.mark.parametrize("other", ["normalisation", "folder"])
def test_kept_features_are_of_one_normalisation_and_of_one_folder(
    other: str, tmp_path: Path
) -> None:
    """Neither changes the hash of the weights, nor names, sizes and times of the files."""
    first = photos(tmp_path / "first", 8)
    second = photos(tmp_path / "second", 8, seed=1)
    for path in first.iterdir():  # as copied with their times
        size = max(path.stat().st_size, (second / path.name).stat().st_size)
        for file in (path, second / path.name):
            file.write_bytes(file.read_bytes().ljust(size, b"\0"))
            os.utime(file, (1, 1))
    keep, asked = tmp_path / "keep", Pixels()
    measure(*[StoredImages(str(first))] * 2, network(), Preparation(), about={}, keep=keep)
    found = network(asked)
    if other == "normalisation":
        found = replace(found, normalisation="mean 0.5, 0.5, 0.5; deviation 0.5, 0.5, 0.5")
    drawn = StoredImages(str(second if other == "folder" else first))
    measure(StoredImages(str(first)), drawn, found, Preparation(), about={}, keep=keep)
    assert asked.asked == 8


def test_kept_features_that_are_damaged_are_named(tmp_path: Path) -> None:
    sets = [StoredImages(str(photos(tmp_path / name, 8))) for name in ("real", "drawn")]
    measure(*sets, network(), Preparation(), about={}, keep=tmp_path / "keep")
    for file in (tmp_path / "keep").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"expected features that were kept there, found damage"):
        measure(*sets, network(), Preparation(), about={}, keep=tmp_path / "keep")


@pytest.mark.filterwarnings("ignore::wuerstchen.inference.pipeline.PromptWarning")
def test_a_model_draws_what_the_pipeline_draws_for_prompt_and_seed(
    model: Path, data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Pixels
) -> None:
    out = tmp_path / "out"
    arguments = (data.path, "--model", model, "--count", 6, "--seed", 3, "--out", out)
    assert run(monkeypatch, *arguments) == 0
    written = json.loads((out / "distance.json").read_text(encoding="utf-8"))
    captions = StoredImages(data.path, 6).captions()
    pipeline = open_pipeline(model)

    def draw(prompts: Sequence[str], seed: int) -> list[Image.Image]:
        return list(pipeline(list(prompts), seed=seed).images)

    shas = [sha for _, sha in DrawnImages(draw, captions, 3, "").load(0, 6)]
    assert written["drawn"]["images"] == hashlib.sha256("".join(shas).encode()).hexdigest()
    assert written["protocol"]["prompts_sha256"] == prompts_digest(captions)
    about = written["drawn"]
    assert (about["prior_steps"], about["decoder_steps"], about["seeds"]) == (6, 4, "3 to 8")
    assert about["prior_sampler"] == "ddpm" and about["prior_guidance_scale"] > 0


def test_the_hash_of_a_model_is_of_all_its_files_wherever_they_are(
    model: Path, tmp_path: Path
) -> None:
    """A prior in another folder, tokenizers, and a model that is one file."""

    def hashed(path: Path) -> object:
        return open_drawing(path, ["a hat"], 0)[1]["model_weights"]

    copy, alone = tmp_path / "copy", tmp_path / "model.safetensors"
    shutil.copytree(model, copy)
    assert hashed(copy) == hashed(model)
    shutil.move(copy / "prior_prior", tmp_path / "elsewhere")
    (copy / "prior_prior").symlink_to(tmp_path / "elsewhere")
    found = {hashed(copy)}
    assert found == {hashed(model)}
    for path in ("prior_tokenizer/tokenizer_config.json", "vqgan/config.json"):
        (copy / path).write_text((copy / path).read_text() + "\n")
        found.add(hashed(copy))
    assert len(found) == 3
    parts = {part.component: part for part in weights.resolve(model).components()}
    weights.convert(parts, alone, "single-file")
    assert hashed(alone) not in found


def _damage(folder: Path) -> None:
    (folder / "004.png").write_bytes(b"not an image")


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _half(folder: Path) -> None:
    (folder / "999.txt").write_text("a caption whose image is not there yet")


def _few(folder: Path) -> None:
    for file in sorted(folder.iterdir())[3:]:
        file.unlink()


def _raw(folder: Path) -> None:
    (folder / "a.heic").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_damage, "image 004.png cannot be read"),
        (_empty, "expected a folder of images"),
        (_half, "999.txt is a caption without its image; the set is half-written"),
        (_raw, "a.heic is of a format that is not read"),
        (_few, "at least 6 images on each side, found 12 real and 3 drawn ones"),
    ],
)
def test_a_folder_that_cannot_be_measured_is_one_clear_sentence(
    spoil: object,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stand_in: Pixels,
) -> None:
    real, drawn = photos(tmp_path / "real", 12), photos(tmp_path / "drawn", 12)
    spoil(drawn)  # type: ignore[operator]
    assert run(monkeypatch, real, drawn, "--out", tmp_path / "out") == 2
    told = capsys.readouterr()
    assert expected in told.err
    assert "Traceback" not in told.err and not told.out
    assert not (tmp_path / "out" / "distance.json").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), "Expected drawn images or --model MODEL to draw them, found neither"),
        (("drawn", "--model", "stickers"), "found both; name one"),
        (("drawn", "--features", "clip"), "clip needs weights"),
        (("drawn", "--count", "99"), "expected at least 99 images, found 12; ask for fewer"),
        (("--model", "stickers"), "expected a caption for every image to draw from"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    more: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stand_in: Pixels,
) -> None:
    photos(tmp_path / "real", 12)
    photos(tmp_path / "drawn", 12)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "real", *more) == 2
    assert expected in capsys.readouterr().err


def test_the_default_network_needs_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = photos(tmp_path / "real", 6)
    assert run(monkeypatch, real, real, "--out", tmp_path / "out") == 0
    written = json.loads((tmp_path / "out" / "distance.json").read_text(encoding="utf-8"))
    assert written["protocol"]["features"] == "lite0" and written["protocol"]["side"] == 224
    assert written["figures"]["frechet"]["value"] == pytest.approx(0, abs=1e-4)
