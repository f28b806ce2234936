"""A run by the clock: scenes in memory, three trained stages, a folder that generates."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_stickers import HELD_OUT, TRAIN, write_set
from torch import nn
from typer.testing import CliRunner

from benchmarks.records import this_run
from benchmarks.speedrun import __main__ as command
from benchmarks.speedrun import products, run, timed
from benchmarks.speedrun.__main__ import app
from benchmarks.speedrun.classes import CLASSES
from benchmarks.speedrun.judging import FIXED, JUDGING, LEAST, affordable
from benchmarks.speedrun.report import Attempt, Report, Settings
from benchmarks.speedrun.scenes import Scenes
from wuerstchen import Pipeline
from wuerstchen.data.stickers import Composer, open_sprites
from wuerstchen.errors import WuerstchenError
from wuerstchen.evaluation.stickers.prompts import SETS
from wuerstchen.training.stage_b import CompressorAndStageB
from wuerstchen.training.stage_c import TextAndStageC

SMALL = {
    "data.size": 128,
    "stage_a.model.width": 16,
    "stage_a.model.depth": 1,
    "stage_a.model.codebook": 64,
    "stage_a.training.batch_size": 4,
    "stage_a.training.crop_size": 64,
    "stage_b.model.widths": "[16,32]",
    "stage_b.model.blocks": "[1,1]",
    "stage_b.model.heads": "[0,2]",
    "stage_b.training.batch_size": 4,
    "compressor.width": 0.25,
    "compressor.depth": 0.1,
    "stage_c.model.width": 32,
    "stage_c.model.depth": 1,
    "stage_c.model.heads": 2,
    "stage_c.model.text_width": 32,
    "stage_c.training.batch_size": 8,
    "text.width": 32,
    "text.depth": 1,
    "text.heads": 2,
    "text.vocab_size": 600,
}


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def test_scenes_in_memory_are_those_of_the_composer(stickers: Path, tmp_path: Path) -> None:
    scenes = Scenes(tmp_path, "train", stickers, 128, 260, seed=3)
    scenes.start(2)
    scenes.wait()
    composer = Composer(open_sprites(stickers), 128, 3)
    assert len(scenes) == 260
    for index in (0, 249, 250, 259):
        composed = composer[index]
        assert scenes[index].captions == tuple(each.text for each in composed.captions)
        assert bytes(scenes.pixels[index].numpy()) == composed.image.tobytes()


def test_an_earlier_run_leaves_nothing_to_a_later_one(stickers: Path, tmp_path: Path) -> None:
    for seed in (3, 4):
        scenes = Scenes(tmp_path, "train", stickers, 128, 2, seed=seed)
        scenes.start(1)
        scenes.wait()
        composed = Composer(open_sprites(stickers), 128, seed)[0]
        assert scenes[0].captions == tuple(each.text for each in composed.captions)
        assert bytes(scenes.pixels[0].numpy()) == composed.image.tobytes()


VALUES = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small networks are no faster on two, and far slower where others use them."""
    monkeypatch.setattr(run, "available_cores", lambda: 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def speedrun(stickers: Path, out: Path, *options: str) -> str:
    """The command in this process; what it prints."""
    arguments = ["laptop", str(stickers), str(out), "--scenes", "40", *VALUES, *options]
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.output


EARLIER = 100.0
"""Seconds for which a process has run when the command starts."""


class StartedEarlier:
    def create_time(self) -> float:
        return time.time() - EARLIER


def test_time_and_start_of_a_run_that_is_stopped_are_kept(
    stickers: Path, tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: Scenes) -> None:
        [saved] = json.loads((tmp_path / "report.json").read_text())["attempts"]
        assert EARLIER < saved["seconds"] < EARLIER + 60
        time.sleep(0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "psutil", SimpleNamespace(Process=StartedEarlier))
    monkeypatch.setattr(Scenes, "start", lambda *_: None)
    monkeypatch.setattr(Scenes, "wait", stopped)
    begun = time.perf_counter()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        speedrun(stickers, tmp_path)
    spent = EARLIER + time.perf_counter() - begun
    report = json.loads((tmp_path / "report.json").read_text())
    assert EARLIER + 0.5 < report["seconds"] < spent


@pytest.mark.parametrize(
    ("changed", "judged", "seconds", "reasons"),
    [
        ([], 100, 3600, []),
        (["seed=1"], 100, 3600, []),
        (["scenes=40", "seed=1"], 100, 3600, ["scenes=40"]),
        (["stage_a.model.width=8"], 100, 3600, ["stage_a.model.width=8"]),
        ([], 99, 3600, ["judged=99"]),
        ([], 100, 3601, ["3,601 s, beyond the limit"]),
    ],
)
def test_a_record_has_the_settings_of_its_class_but_for_the_seed_and_is_in_time(
    changed: list[str], judged: int, seconds: float, reasons: list[str]
) -> None:
    usual = CLASSES["laptop"]
    settings = Settings(
        of="laptop",
        changed=changed,
        stickers=1,
        scenes=1,
        seconds=usual.seconds,
        limit=usual.limit,
        compiled=False,
        config={},
    )
    attempts = [Attempt(run=this_run("study"), seconds=part) for part in (100, seconds - 100)]
    report = Report(settings=settings, attempts=attempts, judged=judged, scores={})
    assert report.no_record == reasons
    assert "no scores" in report.model_copy(update={"scores": None}).no_record


def noting(
    call: Callable[[nn.Module], object], networks: list[nn.Module]
) -> Callable[[nn.Module], object]:
    """The same call, whose networks are noted."""

    def noted(network: nn.Module) -> object:
        networks.append(network)
        return call(network)

    return noted


def test_one_command_leads_to_scores_and_a_second_one_resumes(
    stickers: Path, tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "SECONDS", 0.05)
    monkeypatch.setitem(products.SIDES, "cpu", 256)
    monkeypatch.setattr(timed, "COUNTED_STEP", 1)
    monkeypatch.setattr(run, "RECONSTRUCTED", 16)
    monkeypatch.setattr(command, "psutil", SimpleNamespace(Process=StartedEarlier))
    muon, bf16 = list[nn.Module](), list[nn.Module]()
    for name, networks in (("linear_weights", muon), ("Bf16Autocast", bf16)):
        monkeypatch.setattr(timed, name, noting(getattr(timed, name), networks))
    recipe = "stage_c.training.optimizer=adamw", "stage_c.training.precision=bf16"
    options = ("--seconds", "0.5,0.5,0.5", *(part for each in recipe for part in ("--set", each)))
    begun = time.time()
    speedrun(stickers, tmp_path, *options, "--judged", "0")
    trained = json.loads((tmp_path / "report.json").read_text())
    assert trained["scores"] is None and not trained["in_time"]
    assert [type(each) for each in muon] == [CompressorAndStageB]
    assert [type(each) for each in bf16] == [TextAndStageC]
    with pytest.raises(WuerstchenError, match="differs in changed, seconds"):
        speedrun(stickers, tmp_path, "--seconds", "0.5,0.5,0.6")

    speedrun(stickers, tmp_path, *options, "--judged", "3")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["stages"] == trained["stages"] and list(report["stages"]) == ["a", "b", "c"]
    for stage in report["stages"].values():
        assert stage["steps"] > 0 and 0.5 <= stage["seconds"] < 20
        assert stage["flops_per_second"] == stage["flops"] / stage["seconds"] > 1e5
    assert len(report["attempts"]) == 2 and report["attempts"][0]["run"]["commit"]
    assert report["products"]["fp32"] > 1e9
    assert report["scores"]["scores"]["background"]["drawn"]["n"] == 6  # of two sets
    assert report["reconstruction"]["stage_a_psnr"] > 5
    receipt = json.loads((tmp_path / "stickers" / "receipt.json").read_text())
    assert report["cost"]["kwh"] == receipt["total"]["kwh"]
    kinds = {(line["stage"], line["kind"]) for line in receipt["lines"]}
    assert {("data", "preparation"), ("b", "encoding"), ("model", "evaluation")} < kinds
    spent = time.time() - begun + 2 * EARLIER
    assert spent - 20 < report["seconds"] < spent  # the page is later
    assert report["seconds"] == sum(attempt["seconds"] for attempt in report["attempts"])
    assert report["judged"] == 3 and "judged=3" in report["no_record"]

    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/") == 4 and not re.search(r"(src|href)=.(?!data:)", page)
    for text in ("Held-out cells: object and style", report["attempts"][1]["run"]["commit"], "kWh"):
        assert text in page
    assert "no: scenes=40" in page
    for wrong in ("nan,1,1", "1,2", "0,1,1", "a,b,c"):
        with pytest.raises(WuerstchenError, match="expected those of Stages A, B and C"):
            speedrun(stickers, tmp_path, "--seconds", wrong)
    assert "Finished before" in speedrun(stickers, tmp_path, *options, "--judged", "3")


def test_as_many_images_are_judged_as_time_allows() -> None:
    each = 0.3
    for left in (FIXED + 100, FIXED + 200):
        count = affordable(left, each, most=1000)
        spent = FIXED + len(SETS) * count * (each + JUDGING)
        assert left - len(SETS) * (each + JUDGING) <= spent <= left
    assert affordable(3600, each, most=100) == 100
    assert affordable(-50, each, most=100) == LEAST
    assert affordable(-50, each, most=4) == 4


def test_the_limit_of_products_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SECONDS", 0.3)
    side = 768
    found = products.product_rates(torch.device("cpu"), side)["fp32"]
    a = torch.rand(side, side)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    assert 2 * side**3 / max(times) / 5 < found < 2 * side**3 / min(times) * 5


@pytest.mark.slow
def test_a_run_by_the_clock_leaves_a_model_that_generates(stickers: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speedrun", "h100", str(stickers), str(tmp_path)]
    command += ["--scenes", "260", "--seconds", "3,3,3", "--judged", "3", "--no-compile", *VALUES]
    place = {"cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
    result = subprocess.run(command, timeout=400, **place)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    for stage in report["stages"].values():
        assert stage["seconds"] < 20 and stage["steps"] > 0
    assert (tmp_path / "report.html").is_file()
    images = Pipeline.from_pretrained(tmp_path / "stickers")("a flat cat", seed=1).images
    assert images[0].size == (128, 128)
