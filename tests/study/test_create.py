"""A study is blind, even and repeatable, and replaces nothing."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from made_study import image_folder, make_study
from PIL import Image
from typer.testing import CliRunner

from wuerstchen.cli import app
from wuerstchen.errors import ConfigError, DataError, SaveError, WuerstchenError
from wuerstchen.study.design import Design, plan
from wuerstchen.study.folder import IMAGES, KEY, STUDY, open_study
from wuerstchen.study.sources import generate_images


def create(*words: object) -> None:
    done = CliRunner().invoke(app, ["study", "create", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output


def planned(systems: int = 3, prompts: int = 10, **changes: object) -> Design:
    options = {"comparisons": None, "per_rater": None, "catch": 3, "repeats": 0.1, "seed": 0}
    names = [f"system {n}" for n in range(systems)]
    return plan(names, prompts, **{**options, **changes})  # type: ignore[arg-type]


def test_what_raters_see_says_nothing_of_systems(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    seen = (study / STUDY).read_text()
    for word in ("round", "angular", "circle", "square", "catch", "repeat", str(tmp_path)):
        assert word not in seen
    files = sorted((study / IMAGES).iterdir())
    assert {path.stat().st_mtime for path in files} == {0}
    for path in files:
        assert b"secret" not in path.read_bytes()
        with Image.open(path) as image:
            assert image.info == {}


def test_the_key_leads_back_to_the_images(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    study, key = open_study(folder)
    names = {"round": "circles", "angular": "squares"}
    for pair in study.pairs:
        systems = [key.images[name].system for name in pair.images]
        if key.pairs[pair.id].kind != "catch":
            assert set(systems) == {"round", "angular"}
        for name, system in zip(pair.images, systems, strict=True):
            if system:
                source = tmp_path / names[system] / key.images[name].source
                shown = Image.open(folder / IMAGES / f"{name}.png")
                assert shown.tobytes() == Image.open(source).tobytes()
                assert source.with_suffix(".txt").read_text() == pair.prompt


def test_a_catch_pair_has_an_image_and_its_pixels_in_disorder(tmp_path: Path) -> None:
    folder = make_study(tmp_path, "--catch", "4")
    study, key = open_study(folder)
    catches = [pair for pair in study.pairs if key.pairs[pair.id].kind == "catch"]
    assert len(catches) == 4
    for pair in catches:
        first, second = (Image.open(folder / IMAGES / f"{n}.png") for n in pair.images)
        assert first.tobytes() != second.tobytes()
        assert sorted(key.images[name].system != "" for name in pair.images) == [False, True]


@pytest.mark.parametrize(("prompts", "comparisons"), [(10, 24), (10, 60), (12, 50), (7, 42)])
def test_comparisons_are_even_over_systems_and_prompts(prompts: int, comparisons: int) -> None:
    design = planned(4, prompts, comparisons=comparisons)
    compared = [pair for pair in design.pairs if pair.kind == "comparison"]
    assert len({(p.prompt, p.a, p.b) for p in compared}) == comparisons
    matches = Counter((p.a, p.b) for p in compared)
    of_prompts = Counter(p.prompt for p in compared)
    assert max(matches.values()) - min(matches.values()) <= 1 and len(matches) == 6
    assert max(of_prompts.values()) - min(of_prompts.values()) <= 1


def test_each_rater_has_own_repeats_and_catch_pairs() -> None:
    design = planned(4, 10, comparisons=24, per_rater=8, repeats=0.25)
    assert len(design.parts) == 3
    for part in design.parts:
        kinds = Counter(design.pairs[index].kind for index in part)
        assert kinds == {"comparison": 8, "repeat": 2, "catch": 3}
        for index in part:
            assert design.pairs[index].first in part


def test_the_last_part_is_filled_from_the_first() -> None:
    design = planned(2, 10, per_rater=4, repeats=0, catch=0)
    assert [len(part) for part in design.parts] == [4, 4, 4]
    assert Counter(index for part in design.parts for index in part).most_common(2)[1][1] == 2


def test_the_same_seed_chooses_the_same_pairs() -> None:
    assert planned(seed=3) == planned(seed=3) != planned(seed=4)
    with pytest.raises(ConfigError, match="1 to 30 comparisons"):
        planned(comparisons=31)


def test_models_get_prompt_k_with_seed_k() -> None:
    asked: list[tuple[str, int]] = []

    def draw(prompts: object, first: int) -> list[Image.Image]:
        asked.extend((text, first + k) for k, text in enumerate(list(prompts)))  # type: ignore[call-overload]
        return [Image.new("RGB", (8, 8)) for _ in list(prompts)]  # type: ignore[call-overload]

    found = list(generate_images(draw, [f"p{n}" for n in range(19)], 100))
    assert asked == [(f"p{n}", 100 + n) for n in range(19)]
    assert found[18].source == "seed 118"


@pytest.mark.slow
def test_a_model_and_a_folder_make_a_study(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "drawn", "circle", 2, side=256)
    create(tmp_path / "study", f"drawn={folder}", "model=stickers")
    _, key = open_study(tmp_path / "study")
    assert {image.source for image in key.images.values()} == {"0.png", "1.png", "seed 0", "seed 1"}


def test_an_existing_study_is_not_replaced(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    before = (study / KEY).read_bytes()
    with pytest.raises(SaveError, match="found a study; nothing there is replaced"):
        create(study, f"a={tmp_path / 'circles'}", f"b={tmp_path / 'squares'}")
    assert (study / KEY).read_bytes() == before


def test_unsuitable_sources_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    image_folder(tmp_path / "a", "circle")
    image_folder(tmp_path / "b", "square", 5)
    image_folder(tmp_path / "large", "square", side=96)
    a, b, large = (tmp_path / name for name in ("a", "b", "large"))
    out = tmp_path / "study"
    with pytest.raises(DataError, match=r"found 5 only in .*a, and 1 such names"):
        create(out, f"a={a}", f"b={b}")
    with pytest.raises(ConfigError, match="64 x 64 and 96 x 96 pixels"):
        create(out, f"a={a}", f"large={large}")
    with pytest.raises(ConfigError, match="two or more systems"):
        create(out, f"a={a}")
    with pytest.raises(ConfigError, match="NAME=SOURCE"):
        create(out, "a", "b")
    with pytest.raises(ConfigError, match="'a' twice"):
        create(out, f"a={a}", f"a={large}")
    with pytest.raises(WuerstchenError, match="outside"):
        create(a / "study", f"a={a}", f"b={b}")
    (a / "3.txt").unlink()
    (large / "3.txt").unlink()
    with pytest.raises(DataError, match=r"3\.txt: expected the prompt"):
        create(out, f"a={a}", f"large={large}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "large"]
    (tmp_path / "p.txt").write_text("\n".join(map(str, range(6))))
    create(out, f"a={a}", f"large={large}", "--prompts", tmp_path / "p.txt", "--size", 64)


@pytest.mark.parametrize("form", ["{}", "img-{}", "img{}-a"])
def test_image_10_has_the_prompt_after_that_of_image_9(tmp_path: Path, form: str) -> None:
    for index, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for number in range(12):
            image = Image.new("RGB", (16, 16), (20 * number, 255 * index, 0))
            image.save(tmp_path / name / f"{form.format(number)}.png")
    prompts = tmp_path / "p.txt"
    prompts.write_text("\n".join(f"prompt {number}" for number in range(12)))
    sources = [f"{name}={tmp_path / name}" for name in ("a", "b")]
    create(tmp_path / "study", *sources, "--prompts", prompts)
    study, key = open_study(tmp_path / "study")
    for pair in study.pairs:
        for name in pair.images:
            if key.images[name].system:
                expected = form.format(pair.prompt.removeprefix("prompt "))
                assert key.images[name].source == f"{expected}.png"


def test_an_empty_folder_that_one_is_in_becomes_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = image_folder(tmp_path / "a", "circle", 2), image_folder(tmp_path / "b", "square", 2)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    create(".", f"a={a}", f"b={b}")
    open_study(tmp_path / "here")
    assert Path("study.json").is_file()


def test_a_failure_leaves_no_folders_above_the_study(tmp_path: Path) -> None:
    a = image_folder(tmp_path / "a", "circle")
    large = image_folder(tmp_path / "large", "square", side=96)
    with pytest.raises(ConfigError, match="pixels"):
        create(tmp_path / "x" / "y" / "study", f"a={a}", f"large={large}")
    assert not (tmp_path / "x").exists()
    create(tmp_path / "x" / "y" / "study", f"a={a}", f"large={large}", "--size", 64)


def test_names_that_the_key_does_not_have_are_refused(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    study, key = (json.loads((folder / name).read_text()) for name in (STUDY, KEY))

    def written(images: list[str]) -> None:
        pairs = [{**study["pairs"][0], "images": images}, *study["pairs"][1:]]
        data = json.dumps({**study, "pairs": pairs}).encode()
        (folder / STUDY).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        (folder / KEY).write_text(json.dumps({**key, "study_sha256": digest}))

    written(["../../../etc/x", study["pairs"][0]["images"][1]])
    with pytest.raises(DataError, match=r"study\.json: expected a file of a study, found: pairs"):
        open_study(folder)
    written(["0" * 16, study["pairs"][0]["images"][1]])
    with pytest.raises(DataError, match=r"key\.json: .* found a changed one"):
        open_study(folder)
    written(study["pairs"][0]["images"])
    open_study(folder)


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    text = (folder / STUDY).read_text()
    image = next((folder / IMAGES).iterdir())
    data = image.read_bytes()
    (folder / STUDY).write_text(text.replace("something red", "something else"))
    with pytest.raises(DataError, match=r"study\.json: .* found a changed one"):
        open_study(folder)
    (folder / STUDY).write_text(text)
    image.write_bytes(data + b"\0")
    with pytest.raises(DataError, match=f"{image.name}: .* found a changed one"):
        open_study(folder)
    image.unlink()
    with pytest.raises(DataError, match=f"{image.name}: .* found none"):
        open_study(folder)
    with pytest.raises(DataError, match=r"expected a study, found no study\.json"):
        open_study(tmp_path)
    image.write_bytes(data)
    key = json.loads((folder / KEY).read_text())
    (folder / KEY).write_text(json.dumps({**key, "extra": 1}))
    with pytest.raises(DataError, match=r"key\.json: expected a file of a study, found: extra"):
        open_study(folder)
