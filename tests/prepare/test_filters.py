"""Laws of the filters: each bound drops what exceeds it with its reason, and nothing else."""

import json
from pathlib import Path

import pytest
from made_data import write
from made_sources import Files, as_bytes, drawing, dropped, rows

from wuerstchen.config import PRESETS, FilterConfig, PrepareConfig, load_prepare
from wuerstchen.errors import ConfigError
from wuerstchen.prepare.prepare import prepare

SIZES = {"tiny": (60, 200), "square": (200, 200), "long": (130, 400), "large": (300, 500)}
SCORES = {
    "good": {"aesthetic": 6.5, "pwatermark": 0.1, "punsafe": 0.01, "similarity": 0.34},
    "plain": {"AESTHETIC_SCORE": "4.9", "pwatermark": 0.5, "punsafe": 0.99, "similarity": 0.2},
    "marked": {"aesthetic": 7, "pwatermark": 0.51, "punsafe": 1.0, "similarity": 0.3},
    "unknown": {"aesthetic": None, "pwatermark": "high", "punsafe": float("nan")},
}


def kept(tmp_path: Path, files: Files, **filters: object) -> tuple[set[str], dict[str, int]]:
    source = write(tmp_path / "source", files)
    bounds = FilterConfig.model_validate({"max_aspect": None, **filters})
    config = PrepareConfig(size=128, test_fraction=0, duplicate_distance=None, filters=bounds)
    out = prepare(str(source), tmp_path / "out", config)
    return {str(row["key"])[:-4] for row in rows(out)}, dropped(out)


@pytest.mark.parametrize(
    ("filters", "gone", "reason"),
    [
        ({"min_side": 200}, {"tiny", "long"}, "shorter side under 200 pixels"),
        ({"max_side": 400}, {"large"}, "longer side over 400 pixels"),
        ({"max_aspect": 3.0}, {"tiny", "long"}, "aspect ratio over 3"),
        ({}, set(), ""),
    ],
)
def test_sizes(tmp_path: Path, filters, gone: set[str], reason: str) -> None:
    files: Files = {}
    for seed, (name, size) in enumerate(SIZES.items()):
        files |= {f"{name}.png": as_bytes(drawing(seed, *size)), f"{name}.txt": name}
    found = kept(tmp_path, files, **filters)
    assert found == (set(SIZES) - gone, {reason: len(gone)} if gone else {})


@pytest.mark.parametrize(
    ("filters", "gone"),
    [
        (
            {"min_aesthetic": 5},
            {"aesthetic under 5": {"plain"}, "without aesthetic": {"unknown"}},
        ),
        (
            {"max_watermark": 0.5},
            {"pwatermark over 0.5": {"marked"}, "without pwatermark": {"unknown"}},
        ),
        ({"max_unsafe": 0.99}, {"punsafe over 0.99": {"marked"}, "without punsafe": {"unknown"}}),
        (
            {"min_similarity": 0.3},
            {"similarity under 0.3": {"plain"}, "without similarity": {"unknown"}},
        ),
        ({"min_aesthetic": 5, "missing_score": "keep"}, {"aesthetic under 5": {"plain"}}),
    ],
)
def test_scores(tmp_path: Path, filters, gone: dict[str, set[str]]) -> None:
    files: Files = {}
    for seed, (name, scores) in enumerate(SCORES.items()):
        files |= {f"{name}.png": as_bytes(drawing(seed)), f"{name}.txt": name}
        files[f"{name}.json"] = json.dumps(scores)
    names, reasons = kept(tmp_path, files, **filters)
    assert names == set(SCORES) - set().union(*gone.values())
    assert reasons == {reason: len(each) for reason, each in gone.items()}


def test_scores_come_into_the_index(tmp_path: Path) -> None:
    files: Files = {
        "a.png": as_bytes(drawing(1)),
        "a.txt": "a",
        "a.json": json.dumps(SCORES["plain"]),
    }
    source = write(tmp_path / "source", files)
    (row,) = rows(prepare(str(source), tmp_path / "out", PrepareConfig(size=128, test_fraction=0)))
    assert row["aesthetic"] == pytest.approx(4.9) and row["similarity"] == pytest.approx(0.2)


def test_captions(tmp_path: Path) -> None:
    files: Files = {}
    texts = {"short": ["a cat"], "long": ["x" * 40], "both": ["a good caption", "y" * 40]}
    for seed, (name, captions) in enumerate(texts.items()):
        files[f"{name}.png"] = as_bytes(drawing(seed))
        files[f"{name}.json"] = json.dumps({"captions": captions})
    names, reasons = kept(tmp_path, files, min_caption=6, max_caption=30)
    assert names == {"both"}
    assert reasons == {"caption under 6 characters": 1, "caption over 30 characters": 1}
    assert rows(tmp_path / "out")[0]["captions"] == ["a good caption"]


def test_a_caption_that_is_left_out_makes_up_for_no_short_one(tmp_path: Path) -> None:
    files: Files = {
        "a.png": as_bytes(drawing(1)),
        "a.json": json.dumps({"captions": ["a cat", "x" * 40]}),
    }
    files |= {
        "b.png": as_bytes(drawing(2)),
        "b.json": json.dumps({"captions": ["a good caption", "y" * 40]}),
    }
    names, reasons = kept(tmp_path, files, min_caption=6, max_caption=30)
    assert (names, reasons) == ({"b"}, {"caption under 6 characters": 1})


def test_the_papers_preset_has_the_bounds_of_the_authors_code() -> None:
    config = load_prepare("paper", ["size=1024"])
    bounds = config.filters
    assert config.size == 1024 and (bounds.min_side, bounds.max_side) == (512, 4096)
    assert (bounds.min_aesthetic, bounds.max_watermark, bounds.max_unsafe) == (5.0, 0.5, 0.99)
    assert bounds.missing_score == "drop" and bounds.max_aspect is None
    assert PRESETS["paper"]["size"] == 512, "an override leaves the preset as it is"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sise=256"], "unknown key 'sise'; did you mean 'size'"),
        (["filters.least=3"], "unknown key 'filters.least'"),
        (["size=100"], "size: .*multiple of 128"),
        (["filters.min_side=9", "filters.max_side=8"], "must not exceed"),
        (["256"], "Expected KEY=VALUE such as size=256, found '256'"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_prepare(None, words)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="preset of paper, found 'laion'"):
        load_prepare("laion")
