"""Laws of the loop, shown by a stage that fits a line: steps, averages, checkpoints, failures."""

import contextlib
import json
import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from line_stage import Judged, Line, assert_equal, loop_of, recipe, state_of
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.training.optim import lr_factor
from wuerstchen.training.stage import TrainState, held_out_batch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_the_same_command_resumes(
    splits: tuple[Pairs, Pairs], tmp_path: Path, number: signal.Signals
) -> None:
    whole = Line(recipe())
    never = loop_of(whole, splits, tmp_path / "never")
    never.run()
    first, handlers = Line(recipe()), [signal.getsignal(number)]

    def kill(step: int, value: Tensor) -> Tensor:
        if step == 7:
            os.kill(os.getpid(), number)
        return value

    first.disturb = kill
    with pytest.raises(TrainingError, match=r"interrupted after 28 of 80 .* same command"):
        loop_of(first, splits, tmp_path / "run").run()
    assert signal.getsignal(number) is handlers[0]
    second = Line(recipe())
    resumed = loop_of(second, splits, tmp_path / "run")
    assert resumed.state.images == 28
    resumed.run()
    assert first.seen + second.seen == whole.seen
    assert_equal(state_of(resumed), state_of(never))


def test_signals_that_come_together_are_one_and_a_later_one_ends_without_saving(
    splits: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher passes on what its processes receive as well."""

    def run(folder: Path, *numbers: signal.Signals) -> int:
        stage = Line(recipe(checkpoint_every=1000, validate_every=1000))

        def kill(step: int, value: Tensor) -> Tensor:
            for number in numbers if step == 7 else ():
                os.kill(os.getpid(), number)
                time.sleep(0.001)
            return value

        stage.disturb = kill
        with pytest.raises((TrainingError, KeyboardInterrupt)):
            loop_of(stage, splits, folder).run()
        return loop_of(Line(recipe()), splits, folder).state.images

    assert run(tmp_path / "1", signal.SIGINT, signal.SIGTERM, signal.SIGTERM) == 28
    assert run(tmp_path / "2", signal.SIGHUP, signal.SIGHUP) == 28
    monkeypatch.setattr("wuerstchen.signals.SAME", 0.0)
    assert run(tmp_path / "3", signal.SIGTERM, signal.SIGHUP) == 28
    assert run(tmp_path / "4", signal.SIGTERM, signal.SIGINT) == 0


def test_nohup_is_respected(splits: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    stage, before = Line(recipe()), signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def hang_up(step: int, value: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGHUP)
        return value

    stage.disturb = hang_up
    try:
        loop = loop_of(stage, splits, tmp_path)
        loop.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert loop.state.images == 80


def test_a_lost_terminal_saves(splits: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    """Everything that writes to it then fails, and the signal follows."""
    controller, terminal = os.openpty()
    kept, stderr = os.dup(2), sys.stderr
    stage = Line(recipe())

    def lose(step: int, value: Tensor) -> Tensor:
        if step == 5:
            os.close(controller)
        if step == 7:
            os.kill(os.getpid(), signal.SIGHUP)
        return value

    stage.disturb = lose
    os.dup2(terminal, 2)
    os.close(terminal)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    try:
        with pytest.raises(TrainingError, match="interrupted after 28 of 80"):
            loop_of(stage, splits, tmp_path).run()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.close()
        sys.stderr = stderr
        os.dup2(kept, 2)
        os.close(kept)
    assert loop_of(Line(recipe()), splits, tmp_path).state.images == 28


def test_the_data_order_does_not_depend_on_the_batch(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    four, eight = Line(recipe()), Line(recipe(batch_size=8))
    loop_of(four, splits, tmp_path / "4").run()
    loop_of(eight, splits, tmp_path / "8").run()
    assert four.seen == eight.seen


def test_the_average_follows_its_law(splits: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    stage = Line(recipe(ema_decay=0.5))
    loop = loop_of(stage, splits, tmp_path)
    loop.run()
    expected = stage.history[0]
    for count, weight in enumerate(stage.history[1:], start=1):
        kept = min(0.5, (1 + count) / (10 + count))
        expected = kept * expected + (1 - kept) * weight
    found = state_of(loop)["0.weight"]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert len(stage.history) == 20


def test_the_schedule_warms_up_and_ends_at_a_hundredth() -> None:
    constant, cosine = recipe(warmup_steps=10), recipe(warmup_steps=10, lr_schedule="cosine")
    assert [lr_factor(constant, step, 0) for step in (1, 5, 10, 99)] == [0.1, 0.5, 1.0, 1.0]
    assert lr_factor(cosine, 99, 0) == pytest.approx(1)
    assert lr_factor(cosine, 99, 40) == pytest.approx(0.505)
    assert lr_factor(cosine, 99, 80) == lr_factor(cosine, 99, 800) == pytest.approx(0.01)
    falling = [lr_factor(cosine, 99, images) for images in range(0, 81, 4)]
    assert falling == sorted(falling, reverse=True)
    assert lr_factor(recipe(warmup_steps=0), 1, 0) == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda value: value * math.nan, "the loss is not finite"),
        (lambda value: value / value.detach() * 1e6, "the loss rose to"),
        (lambda value: value + (value - value.detach()).abs().sqrt(), "gradient that is not"),
    ],
    ids=["nan", "diverged", "infinite gradient"],
)
def test_a_loss_that_runs_away_stops_before_it_spoils_anything(
    splits: tuple[Pairs, Pairs],
    tmp_path: Path,
    spoil: Callable[[Tensor], Tensor],
    words: str,
) -> None:
    long = recipe(images=160, checkpoint_every=4)
    stage = Line(long)
    stage.disturb = lambda step, value: spoil(value) if step == 26 else value
    with pytest.raises(TrainingError) as caught:
        loop_of(stage, splits, tmp_path).run()
    message = str(caught.value)
    assert words in message and "Stage a stopped at step 26" in message
    assert all(key in message for key in stage.seen[-4:])
    again = loop_of(Line(long), splits, tmp_path)
    assert again.state.images == 100
    assert all(value.isfinite().all() for value in state_of(again).values())


@pytest.mark.parametrize(("keep", "last"), [(1, [80]), (2, [72, 80]), (3, [64, 72, 80])])
def test_the_last_few_checkpoints_and_the_best_are_kept(
    splits: tuple[Pairs, Pairs], tmp_path: Path, keep: int, last: list[int]
) -> None:
    left_by_a_kill = tmp_path / "checkpoints" / ".000000000004.new"
    left_by_a_kill.mkdir(parents=True)
    stage = Line(recipe(keep_checkpoints=keep))
    stage.losses_held_out = iter([3.0, 1.0, 2.0, 1.5])  # after 20, 40, 60 and 80 images
    loop_of(stage, splits, tmp_path).run()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"{images:012d}" for images in (40, *last)]


@pytest.mark.parametrize("export", ["last", "best"])
def test_a_stage_ends_with_its_last_or_its_best_weights(
    splits: tuple[Pairs, Pairs], tmp_path: Path, export: str
) -> None:
    stage = Line(recipe(export=export, ema_decay=0.0))
    stage.losses_held_out = iter([3.0, 1.0, 2.0, 1.5])
    loop = loop_of(stage, splits, tmp_path)
    loop.run()
    expected = stage.history[-1 if export == "last" else 9]  # ten steps are 40 images
    torch.testing.assert_close(state_of(loop)["0.weight"], expected, atol=1e-6, rtol=1e-5)


def test_a_stage_ends_with_weights_from_before_another_network_joined(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    """Its optimizer had nothing to remember then."""
    stage = Judged(recipe(export="best", ema_decay=0.0))
    stage.losses_held_out = iter([1.0, 2.0, 3.0, 4.0])
    loop = loop_of(stage, splits, tmp_path)
    loop.run()
    torch.testing.assert_close(state_of(loop)["0.weight"], stage.history[4], atol=1e-6, rtol=1e-5)


def test_a_held_out_loss_that_is_no_number_is_no_record(
    splits: tuple[Pairs, Pairs], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Line(recipe(export="best", ema_decay=0.0))
    stage.losses_held_out = iter([3.0, math.nan, 1.0, 2.0])
    loop = loop_of(stage, splits, tmp_path)
    loop.run()
    torch.testing.assert_close(state_of(loop)["0.weight"], stage.history[14], atol=1e-6, rtol=1e-5)
    assert "validation loss of stage a after 40 images is not finite" in caplog.text
    log = (tmp_path / "log.jsonl").read_text()
    assert '"held_out": null' in log and "NaN" not in log


def test_a_stage_that_is_taken_over_reads_no_image(
    splits: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pairs, "image", lambda pairs, i: pytest.fail("an image was read"))
    loop = loop_of(Line(recipe(images=0, init_from="another")), splits, tmp_path)
    loop.run()
    assert loop.state == TrainState()


def test_without_images_that_are_held_out_the_last_weights_count(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Line(recipe(export="best", ema_decay=0.0))
    train, none, _ = open_pairs(DataConfig(path=str(images), test_fraction=0.0))
    with caplog.at_level("INFO"):
        loop = loop_of(stage, (train, none), tmp_path)
        loop.run()
    assert "no validation images, so stage a ends with its last weights" in caplog.text
    torch.testing.assert_close(state_of(loop)["0.weight"], stage.history[-1], atol=1e-6, rtol=1e-5)


def test_of_several_averages_the_one_with_the_lowest_loss_is_taken(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    stage = Line(recipe(ema_decay=[0.0, 0.5], validate_every=40))
    stage.losses_held_out = iter([1.0, 2.0, 0.9, 0.8])  # at each look: the first, the second
    loop = loop_of(stage, splits, tmp_path)
    loop.run()
    alone = Line(recipe(ema_decay=0.5))
    other = loop_of(alone, splits, tmp_path / "alone")
    other.run()
    assert_equal(state_of(loop), state_of(other))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["held_out@0.5"] for entry in log if "held_out@0.5" in entry] == [2.0, 0.8]


def test_a_full_disk_keeps_the_checkpoint_before(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    stage = Line(recipe(validate_every=1000), width=5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, value: Tensor) -> Tensor:
        if step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        return value

    stage.disturb = fill
    try:
        with pytest.raises(SaveError, match=r"000000000016 could not be written \(File too large"):
            loop_of(stage, splits, tmp_path).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000008"]
    assert loop_of(Line(recipe(), width=5000), splits, tmp_path).state.images == 8


def test_other_networks_than_in_the_checkpoint_are_named(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    loop_of(Line(recipe()), splits, tmp_path).run()
    with pytest.raises(TrainingError, match=r"does not fit .*has the shape.* restore the config"):
        loop_of(Line(recipe(), width=2), splits, tmp_path)


def test_a_run_with_a_damaged_checkpoint_ends_as_an_undamaged_one(
    splits: tuple[Pairs, Pairs], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    never, half, rest = Line(recipe()), Line(recipe(images=40)), Line(recipe())
    whole = loop_of(never, splits, tmp_path / "never")
    whole.run()
    loop_of(half, splits, tmp_path / "run").run()
    (path,) = (tmp_path / "run" / "checkpoints" / "000000000040").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    resumed = loop_of(rest, splits, tmp_path / "run")
    assert resumed.state.images == 32 and "found a damaged one" in caplog.text
    resumed.run()
    assert_equal(state_of(resumed), state_of(whole))


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "killed before the first save"])
def test_what_a_killed_run_wrote_too_much_leaves_the_log(
    splits: tuple[Pairs, Pairs], tmp_path: Path, saved: bool
) -> None:
    if saved:
        loop_of(Line(recipe(images=40)), splits, tmp_path).run()
    log = tmp_path / "log.jsonl"
    before = log.read_text() if saved else ""
    later = json.dumps({"images": 44, "error": 1.0})
    log.write_text(f'{before}{later}\n{{"images": 48, "err')
    loop_of(Line(recipe()), splits, tmp_path)
    assert log.read_text() == before


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_loss_speed_and_time_left_are_told_on_stderr_all_along(
    splits: tuple[Pairs, Pairs],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("wuerstchen.training.progress.LINE_EVERY", 0.0)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    loop_of(Line(recipe()), splits, tmp_path).run()
    out, error = capsys.readouterr()
    assert out == ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", error)
    assert "loss 0." in plain and "images/s" in plain and "0:00:00" in plain
    if terminal:
        assert "80/80 images" in plain
    else:  # one line after every step here, as LINE_EVERY is nothing
        assert error == plain
        seen = [int(count) for count in re.findall(r"(\d+) of 80 images", plain)]
        assert seen == sorted(seen) and len(seen) == len(plain.splitlines()) > 10
        assert seen[-1] == 80


def test_a_log_is_not_flooded(
    splits: tuple[Pairs, Pairs], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop_of(Line(recipe()), splits, tmp_path).run()
    assert len(capsys.readouterr().err.splitlines()) == 2  # after the first step and the last


def test_an_error_that_is_no_number_stops_though_the_loss_is_one(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    loop = loop_of(Line(recipe()), splits, tmp_path)
    loop.state.step = 1
    with pytest.raises(TrainingError, match="the loss has an error that is not finite"):
        loop._monitor({"error": math.nan}, held_out_batch(splits[0], 1))


@pytest.mark.parametrize("seed", range(20))
def test_an_error_that_only_varies_is_no_divergence(
    splits: tuple[Pairs, Pairs], tmp_path: Path, seed: int
) -> None:
    """Batches of one image at random times: the loss varies by its weight, from 0 to 10."""
    loop = loop_of(Line(recipe()), splits, tmp_path)
    times = torch.rand(2000, generator=torch.Generator().manual_seed(seed))
    errors = diffusion.data_weight(diffusion.training_times(times)).tolist()
    batch = held_out_batch(splits[0], 1)
    for step, error in enumerate(errors, 1):
        loop.state.step = step
        loop._monitor({"error": error}, batch)
