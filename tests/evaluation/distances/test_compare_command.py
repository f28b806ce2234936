"""`wuerstchen compare`: like beside like, and unlike refused by name."""

import json
import sys
from pathlib import Path

import pytest

from wuerstchen.cli import main
from wuerstchen.evaluation.distances.published import published_figures
from wuerstchen.evaluation.distances.record import Record, Setting
from wuerstchen.evaluation.distances.spread import Spread

CARD: dict[str, Setting] = {
    "n_real": 500,
    "n_drawn": 500,
    "features": "inception",
    "feature_weights": "ab" * 32,
    "size": 256,
    "filter": "bicubic",
    "crop": "square",
    "prompts_sha256": "cd" * 32,
}


def record(folder: Path, frechet: float, recall: float = 0.5, **other: Setting) -> Path:
    """Written as the command writes it; `steps` is of the drawn images."""
    drawn = {"model": folder.name, "steps": other.pop("steps", 12)}
    figures = {"frechet": Spread(frechet), "kid": Spread(0.01, 0.002), "recall": Spread(recall)}
    return Record(CARD | other, drawn, figures).save(folder)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wuerstchen", "compare", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_like_figures_stand_side_by_side_with_the_best_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = record(Path("a"), 21.5, recall=0.4), record(Path("b"), 18.25, steps=50)
    assert run(monkeypatch, one, other) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a/distance.json", "b/distance.json"] in rows
    assert ["Fréchet", "distance", "21.5", "18.25*"] in rows  # less is better
    assert ["recall", "0.4", "0.5*"] in rows  # more is better
    assert ["KID", "0.01", "±", "0.002", "0.01", "±", "0.002"] in rows
    assert ["steps:", "12,", "50"] in rows  # the models may differ


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"n_drawn": 5000}, "n_drawn is 500 in a/distance.json and 5000 in b/distance.json;"),
        ({"filter": "bilinear"}, "filter is bicubic in a/distance.json and bilinear in b"),
        ({"feature_weights": "ef" * 32}, "feature_weights is abababababab… in a/distance.json and"),
        ({"prompts_sha256": None}, "and not stated in b/distance.json"),
        ({"n_real": 1, "n_drawn": 1, "size": 1, "crop": "none"}, "and 1 more differ"),
        ({"another": 3}, "another is not stated in a/distance.json and 3 in b/distance.json"),
    ],
)
def test_unlike_protocols_are_refused_by_the_name_of_the_difference(
    other: dict[str, Setting],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, record(Path("a"), 1.0), record(Path("b"), 2.0, **other)) == 2
    told = capsys.readouterr()
    assert "cannot be compared" in told.err and expected in told.err and not told.out


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "a file that `wuerstchen distance` or `wuerstchen alignment` wrote, but"),
        ('{"kind": "distance"}', "but protocol: Field required"),
        ("[]", "not a JSON object"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_none_of_ours_is_named(
    content: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    assert run(monkeypatch, path) == 2
    told = capsys.readouterr().err
    assert str(path) in told and expected in told


def test_published_figures_come_with_what_keeps_them_from_being_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, record(tmp_path, 21.5), "--against", "sd-2.1,wuerstchen-v2") == 0
    printed = capsys.readouterr().out
    assert "Stable Diffusion 2.1: Fréchet distance 15.1, Inception Score 40.1." in printed
    assert "Würstchen v2: Fréchet distance 23.6, Inception Score 40.9." in printed
    assert "Not comparable with the figures above: n_drawn is 30000 there and 500 here." in printed
    assert run(monkeypatch, record(tmp_path, 21.5, n_drawn=30_000), "--against", "all") == 0
    assert "Comparable only if the real images are the same" in capsys.readouterr().out
    assert run(monkeypatch, record(tmp_path, 21.5), "--against", "sd-2") == 2
    assert "did you mean sd-2.1?" in capsys.readouterr().err


def test_every_published_figure_has_a_source_and_says_who_measured_it() -> None:
    for each in published_figures().values():
        assert "arXiv:2306.00637v2, Table 2" in each.source and each.note.endswith(".")
        assert each.frechet is None or 1 < each.frechet < 100


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = record(tmp_path, 0.1 + 0.2)
    assert json.loads(path.read_text(encoding="utf-8"))["figures"]["frechet"]["value"] == 0.1 + 0.2
