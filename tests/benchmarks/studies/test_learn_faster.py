"""Laws of the study of compute to equal score, at a tiny size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_stickers import HELD_OUT, TRAIN, write_set
from typer.testing import CliRunner

from benchmarks.records import this_run
from benchmarks.studies.learn_faster import __main__ as command
from benchmarks.studies.learn_faster import report, stage_b
from benchmarks.studies.learn_faster.encoded import Sizes, load_or_encode
from benchmarks.studies.learn_faster.probes import Probes
from benchmarks.studies.learn_faster.stage_c import Space
from benchmarks.studies.learn_faster.trials import TRIALS
from wuerstchen.config import load
from wuerstchen.errors import DataError

SIZES = Sizes(objects=2, styles=2, scenes=12, prompts=4, latents=4, pictures=2)

SMALL = {
    "text.width": 16,
    "stage_b.model.text_width": 16,
    "stage_b.training.images": 8,
    "stage_b.training.batch_size": 2,
    "stage_c.model.width": 16,
    "stage_c.model.text_width": 16,
    "stage_c.model.depth": 1,
    "stage_c.training.images": 64,
    "stage_c.training.batch_size": 8,
}


def semantics(*shape: int, seed: int = 0) -> torch.Tensor:
    return 42 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_probes_know_what_is_linear_and_guess_what_is_noise() -> None:
    labels = torch.randint(3, (900, 3), generator=torch.Generator().manual_seed(1))
    x = semantics(900, 4, 2, 2)
    x[:, 0, 0, 0] += 400 * labels[:, 0]  # the object, in one number
    x[:, 1, 0, 0] += 400 * (labels[:, 0] == 1)  # a straight line cannot single out its middle
    right = Probes(x[:600], labels[:600]).right(x[600:], labels[600:])
    assert right["object"] > 0.95
    assert 0.2 < right["style"] < 0.47 and 0.2 < right["background"] < 0.47


def test_all_principal_components_lose_nothing_and_few_of_them_the_least() -> None:
    x = semantics(50, 4, 3, 3) * torch.tensor([5.0, 3.0, 0.1, 0.1]).view(1, 4, 1, 1)
    for components, error in ((0, 1e-4), (4, 1e-3), (2, 10.0)):
        space = Space(x, components)
        assert (space.leave(space.enter(x)) - x).square().mean() ** 0.5 < error
    assert Space(x, 2).enter(x).shape == (50, 2, 3, 3)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ((0.2, 0.4, 0.6, 0.8), 0.5),  # the base's last score, 0.6, after half of the images
        ((0.7, 0.8, 0.9, 0.9), 0.125),  # at the first point already
        ((0.1, 0.2, 0.3, 0.4), None),  # never
        ((0.2, 0.5, 0.7, 0.8), 0.25 * 2**0.5),  # halfway between two points, in the logarithm
    ],
)
def test_compute_to_equal_score_is_where_the_curve_crosses(
    candidate: tuple[float, ...], expected: float | None
) -> None:
    spent = [125.0, 250.0, 500.0, 1000.0]
    found = report.compute_to_score(spent, candidate, 0.6)
    assert found == (None if expected is None else pytest.approx(1000 * expected))


def result(name: str, seed: int, values: tuple[float, ...]) -> report.Result:
    points = [
        {"images": n, "flops": 2.0 * n, "seconds": 1.0, "ema": 0.9, "scores": {"score": value}}
        for n, value in zip((1, 2, 4, 8), values, strict=True)
    ]
    content = {"trial": {"name": name}, "seed": seed, "run": this_run("study"), "points": points}
    return report.Result.model_validate(content)


def test_a_ratio_needs_every_seed_and_the_published_recipe_is_the_unit() -> None:
    base = [result("c-paper", 0, (0.1, 0.2, 0.3, 0.5)), result("c-paper", 1, (0.1, 0.2, 0.3, 0.7))]
    fast = [result("c-v", seed, (0.1, 0.6, 0.6, 0.9)) for seed in (0, 1)]
    slow = [result("c-muon", 0, (0.1, 0.6, 0.7, 0.9)), result("c-muon", 1, (0.1, 0.2, 0.3, 0.4))]
    rows = {row.trial: row for row in report.rows_of([*base, *fast, *slow])}
    assert rows["c-paper"].flops_ratio == pytest.approx(1)
    assert rows["c-v"].flops_ratio == pytest.approx(0.25)
    assert rows["c-v"].interval == pytest.approx((0.25, 0.25))
    assert rows["c-muon"].flops_ratio is None and rows["c-muon"].reached == 1


def test_every_trial_is_a_valid_config_that_changes_one_stage() -> None:
    base = load(str(command.BASE))
    for trial in TRIALS:
        config = load(str(command.BASE), trial.overrides)
        other = "stage_b" if trial.stage == "c" else "stage_c"
        assert getattr(config, other).training == getattr(base, other).training
        assert trial.name == f"{trial.stage}-paper" or trial.overrides or trial.warm_start


def test_trials_of_both_stages_are_scored_counted_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stickers = write_set(tmp_path / "stickers", TRAIN, HELD_OUT)
    out = tmp_path / "out"
    monkeypatch.setattr(command, "SIZES", SIZES)
    monkeypatch.delitem(stage_b.SAMPLERS, "12")
    names = "c-today-warm", "b-today"
    short = [replace(trial, warm_start=min(16, trial.warm_start)) for trial in TRIALS]
    monkeypatch.setattr(command, "TRIALS", short)
    small = [f"--set={key}={value}" for key, value in SMALL.items()]
    small += ["--set=stage_b.model.widths=[16,16]", "--set=stage_b.model.condition_width=16"]
    arguments = [str(stickers), f"--out={out}", f"--only={','.join(names)}", "--seeds=1", *small]
    done = CliRunner().invoke(command.app, arguments)
    assert done.exit_code == 0, done.output
    of_c, of_b = (json.loads((out / f"{name}-0.json").read_bytes())["points"] for name in names)
    assert [point["images"] for point in of_c] == [8, 16, 32, 64, 64]  # last, with both EMAs
    flops = [point["flops"] for point in of_c]
    steps = [(later - flops[0]) / (flops[1] - flops[0]) for later in flops]
    assert steps == pytest.approx([0, 1, 3, 7, 7])
    assert flops[0] > 1.1 * (flops[1] - flops[0])  # the pretraining counts
    assert 0 <= of_c[0]["scores"]["test background"] <= SIZES.prompts
    assert {"psnr_1", "edges_2"} <= of_b[0]["scores"].keys()
    before = (out / "c-today-warm-0.json").stat().st_mtime_ns
    again = CliRunner().invoke(command.app, arguments)
    assert again.exit_code == 0
    assert (out / "c-today-warm-0.json").stat().st_mtime_ns == before
    others = CliRunner().invoke(command.app, [*arguments, "--set=text.length=8"])
    assert isinstance(others.exception, DataError)
    assert str(others.exception).count("text.length=8") == 1
    for sizes, stickers_of, differing in (
        (replace(SIZES, prompts=5), stickers, "other sizes;"),
        (SIZES, write_set(tmp_path / "fewer", TRAIN[:-1], HELD_OUT), "other stickers;"),
    ):
        with pytest.raises(DataError, match=differing):
            load_or_encode(stickers_of, "stickers", sizes, out / "encoded")
