"""What needs an accelerator, run where every machine can: tiny networks on the CPU."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.accelerator import measure_peers_here
from benchmarks.accelerator_page import accelerator
from benchmarks.device.comparing import Failed, expect, psnr
from benchmarks.device.smoke import check_stages
from benchmarks.device.training import measure
from benchmarks.device.training_page import Case, Measured, Training, find_board, write_page
from benchmarks.figures import Figures
from benchmarks.jobs import Job
from benchmarks.networks import TINY
from benchmarks.records import Results, Store, Times, this_run
from benchmarks.stages import Place
from benchmarks.timing import wall, working

CASE = Case(config="paper-512", stage="c", micro=2, accumulation=2, tiny=True)


def job_in(folder: Path) -> Job:
    store = Store(folder / "accelerator.json", TINY.name)
    return Job(store=store, sizes=TINY, sides=(128,), repeats=1, resume=True, batches=(1,))


def peers(job: Job) -> set[tuple[str, str, int]]:
    found = [each for each in job.store.results.records if isinstance(each, Times)]
    return {(each.system, each.part, each.rows) for each in found}


@pytest.mark.filterwarnings("ignore")  # diffusers' own
def test_peers_are_measured_with_guidance_and_not_after_the_time_is_over(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    measure_peers_here(replace(job, until=time.monotonic()), Place())
    assert peers(job) == set()
    measure_peers_here(job, Place())
    assert peers(job) == {("sd21", "unet", 2), ("sdxl", "unet", 2), ("sd21", "vae", 1)}


def test_what_cannot_run_is_left_out_and_the_rest_is_timed(capfd: pytest.CaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("cannot be compiled")

    runs: list[int] = []
    works = {"broken": broken, "other": lambda: runs.append(1)}
    assert set(working(works, wall, 2)) == {"other"}
    assert len(runs) == 2 and "FAILED broken" in capfd.readouterr().err


def test_the_page_shows_generated_images_and_composes_those_of_peers() -> None:
    def row(system: str, part: str, call: str, rows: int, seconds: float) -> Times:
        how = {"device": "cuda", "dtype": "bfloat16", "side": 1024, "seconds": [seconds]}
        return Times.model_validate(
            {**how, "system": system, "part": part, "call": call, "rows": rows}
        )

    records = [
        row("ours", "whole", "60 + 12", 1, 3.5),
        row("sd21", "unet", "step", 2, 0.25),
        row("sd21", "vae", "step", 1, 0.5),
    ]
    lines = list(accelerator(Figures([Results(records=records)])))
    assert "| ours (60 + 12) | 1024 | 1 | bfloat16 | 3.5 | - |" in lines
    assert "| SD 2.1 (50) | 1024 | 1 | bfloat16 | 13 | - |" in lines  # 50 steps and a decoding


def test_a_tiny_training_is_measured_and_compared_with_its_plan(tmp_path: Path) -> None:
    found = measure(CASE, tmp_path)
    assert found.micro == 2 and found.images == 4 and found.flops > 0
    assert 0 < found.error < 10 and min(found.seconds) > 0
    assert "aten::" in (tmp_path / "profile-paper-512-c.txt").read_text()
    content = Training(run=this_run("tiny"), cases=[found], failed={"paper-1024-b": "no time"})
    (tmp_path / "training.json").write_text(content.model_dump_json())
    text = write_page(tmp_path).read_text()
    assert "| paper-512-c | 2 x 2 |" in text and "paper-1024-b failed: no time" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L40S", "L40S"),
        ("", None),
    ],
)
def test_a_board_is_found_by_the_name_that_its_driver_reports(
    name: str, expected: str | None
) -> None:
    found = find_board(name)
    assert (found and found.name) == expected


def test_images_per_second_are_those_of_whole_batches() -> None:
    measured = Measured(
        case=CASE, micro=2, seconds=[2.0, 6.0], flops=1.0, peak=1, reserved=1, error=1.0
    )
    assert measured.per_second == 1.0


def test_bf16_differs_from_fp32_by_its_rounding_and_not_by_nothing() -> None:
    figures = check_stages("bfloat16", tiny=True)
    values = [float(word) for word in figures.replace(",", "").split() if word[0].isdigit()]
    assert len(values) == 3 and all(1e-4 < value < 0.05 for value in values)


def test_a_figure_outside_its_limits_or_without_a_value_fails() -> None:
    assert expect("PSNR", psnr(torch.zeros(3), torch.full((3,), 0.1)), at_least=19.9) == "PSNR 20"
    for value in (float("nan"), 3.0):
        with pytest.raises(Failed, match="at most 2"):
            expect("difference", value, at_most=2.0)
