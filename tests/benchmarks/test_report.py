"""What follows from the measurements, and the command."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import profile_step
from benchmarks.figures import Figures
from benchmarks.goals import judge
from benchmarks.inference import main
from benchmarks.process import run_module
from benchmarks.records import Count, Difference, Measured, Results, Store, Times
from benchmarks.schedules import Schedule
from benchmarks.tables import rounded_up

SCHEDULE = Schedule("2 + 3", 2, 0, 3)
CALLS = [("stage_c", "step", 2), ("stage_b", "step", 1), ("stage_a", "step", 1)]


def seconds(system: str, part: str, call: str, rows: int, value: float, side: int = 1024) -> Times:
    samples = [value * 0.9, value, value * 1.2]
    return Times(system=system, part=part, call=call, side=side, rows=rows, seconds=samples)


def operations(part: str, call: str, rows: int, side: int, flops: int) -> Count:
    return Count(system="diffusers", part=part, call=call, side=side, rows=rows, flops=flops)


def figures(*records: Measured) -> Figures:
    return Figures([Results(records=list(records))])


def test_a_composed_image_is_the_sum_of_its_calls() -> None:
    known = figures(
        *(
            seconds("diffusers", *call, value)
            for call, value in zip(CALLS, (1, 10, 100), strict=True)
        )
    )
    found = known.image("diffusers", SCHEDULE, 1024)
    assert found is not None and found.how == "composed"
    assert found.value == pytest.approx(2 * 1 + 3 * 10 + 100)
    assert found.low == pytest.approx(0.9 * found.value)
    assert found.high == pytest.approx(1.2 * found.value)
    assert known.image("ours", SCHEDULE, 1024) is None, "a call that was not measured is not zero"


def test_a_size_that_was_not_measured_is_scaled_by_operations_and_says_so() -> None:
    times = [seconds("diffusers", *call, 1.0, side=512) for call in CALLS]
    counts = [operations(*call, side=512, flops=100) for call in CALLS]
    counts += [operations(*call, side=1024, flops=700) for call in CALLS]
    found = figures(*times, *counts).image("diffusers", SCHEDULE, 1024)
    assert found is not None and found.how == "scaled"
    assert found.value == pytest.approx(7 * (2 + 3 + 1))


@pytest.mark.parametrize(
    ("ours", "shown", "reached"),
    [(0.70, "0.7", "yes"), (0.7001, "0.701", "**missed**"), (0.5, "0.5", "yes")],
)
def test_a_goal_is_judged_by_the_figure_and_shown_rounded_up(
    ours: float, shown: str, reached: str
) -> None:
    known = figures(
        seconds("ours", "stage_b", "step", 1, ours), seconds("diffusers", "stage_b", "step", 1, 1.0)
    )
    (row,) = [row for row in judge(known) if row.figure.startswith("Stage B step")]
    assert row.measured.startswith(f"{shown} ") and row.reached == reached


@pytest.mark.parametrize(
    "value", [1e-7, 0.00123456, 0.7001, 0.95, 1.0, 39.99, 40.01, 174.83, 4269.2]
)
def test_rounding_never_makes_a_figure_smaller(value: float) -> None:
    assert value <= float(rounded_up(value)) <= value * 1.011


def test_goals_that_were_not_measured_are_not_called_reached() -> None:
    rows = judge(figures())
    assert len(rows) == 9
    assert {(row.measured, row.reached) for row in rows} == {("not measured", "-")}


def test_equality_is_that_of_the_worst_comparison_in_fp32() -> None:
    def apart(what: str, largest: float, dtype: str = "float32") -> Difference:
        return Difference(what=what, side=1, dtype=dtype, largest=largest, scale=1)

    known = figures(apart("a", 1e-6), apart("b", 2e-4), apart("c", 0.3, "bfloat16"))
    (row,) = [row for row in judge(known) if "difference" in row.figure]
    assert row.reached == "**missed**" and row.measured.startswith("0.0002")


def test_a_file_keeps_the_last_measurement_of_each_thing_and_its_run(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    first = Store(path, "tiny")
    first.add(seconds("ours", "stage_a", "step", 1, 1.0))
    first.add(seconds("ours", "stage_b", "step", 1, 2.0))
    second = Store(path, "tiny")
    second.add(seconds("ours", "stage_b", "step", 1, 3.0))
    assert second.has("times", part="stage_b", rows=1)
    assert not second.has("times", part="stage_b", rows=2)
    content = json.loads(path.read_text())
    assert [(r["part"], r["seconds"][1], r["run"]) for r in content["records"]] == [
        ("stage_a", 1.0, 0),
        ("stage_b", 3.0, 1),
    ]
    assert len(content["runs"]) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["stages.json"]


# The command


def test_a_quick_run_writes_figures_page_and_plots_and_the_page_can_be_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--quick", "--sizes", "128", "--out", str(tmp_path)]
    main([*options, "--only", "stages,peers,flops"])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "inference.md")
    plots = {"operations-per-image.png", "seconds-per-image.png", "share-of-diffusers.png"}
    figures = {"stages.json", "peers.json", "flops.json"}
    assert {path.name for path in tmp_path.iterdir()} == {*plots, *figures, "inference.md"}
    page = (tmp_path / "inference.md").read_text()
    assert "| Stage B step | 128 |" in page and "| SDXL | unet |" in page
    assert "only figures of the CPU" in page

    measured = {name: (tmp_path / name).read_bytes() for name in figures}
    (tmp_path / "inference.md").unlink()
    main([*options, "--report"])
    assert (tmp_path / "inference.md").read_text() == page
    main([*options, "--only", "stages", "--resume"])
    assert measured == {name: (tmp_path / name).read_bytes() for name in figures}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "speed"), "expected some of stages, .* found speed"),
        (("--sizes", "500"), "expected multiples of 128 pixels, found 500"),
        (("--sizes", "big"), "expected numbers such as 512,1024, found big"),
    ],
)
def test_unknown_options_are_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(list(words))
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.slow
def test_a_quick_run_of_all_sections_finds_equal_images(tmp_path: Path) -> None:
    options = ["--quick", "--whole", "--sizes", "128", "--repeats", "1", "--out", str(tmp_path)]
    run_module("benchmarks.inference", *options)
    known = Figures(
        [Results.model_validate_json(path.read_bytes()) for path in tmp_path.glob("*.json")]
    )
    assert len({each.what for each in known.differences}) > 7
    worst = known.worst_difference()
    assert worst is not None and worst < 1e-4
    assert {each.part for each in known.peaks} == {"stage_a", "stage_b", "stage_c", "whole"}
    assert all(each.peak > each.before for each in known.peaks)
    assert {each.part for each in known.times} >= {"start", "whole", "unet", "vae"}


@pytest.mark.slow
def test_a_profile_lists_operators_and_is_found_by_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["stage_b", "--size", "128", "--quick", "--diffusers", "--out", str(tmp_path)]
    profile_step.main(options)
    out = capsys.readouterr().out
    assert "aten::addmm" in out and "Self CPU" in out
    main(["--report", "--out", str(tmp_path)])
    page = (tmp_path / "inference.md").read_text()
    assert "[stage_b-128-diffusers](profile-stage_b-128-diffusers.txt)" in page
