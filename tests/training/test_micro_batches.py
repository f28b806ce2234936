"""Parts of a batch are the batch, and memory that ends makes them smaller; shown by a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from line_stage import Judged, Line, loop_of, recipe, state_of
from torch import Tensor

from wuerstchen.data import Batch, BatchLoader, Pairs
from wuerstchen.errors import TrainingError
from wuerstchen.noise import RandomStreams
from wuerstchen.receipts import Meter
from wuerstchen.training.stage import Loss, Networks, RunName, TrainState


def test_accumulation_changes_nothing(splits: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    results = []
    for parts in (1, 2, 4):
        stage = Line(recipe(gradient_accumulation=parts))
        stage.line[1].p = 0.0
        loop = loop_of(stage, splits, tmp_path / str(parts))
        loop.run()
        results.append(state_of(loop))
    for other in results[1:]:
        for key, value in other.items():
            torch.testing.assert_close(value, results[0][key], atol=1e-6, rtol=0)


def test_parts_of_a_batch_are_the_batch_for_several_networks(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    whole = loop_of(Judged(recipe()), splits, tmp_path / "whole")
    parts = loop_of(Judged(recipe(gradient_accumulation=2)), splits, tmp_path / "parts")
    whole.run()
    parts.run()
    for key, value in state_of(parts).items():
        torch.testing.assert_close(value, state_of(whole)[key], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), MemoryError()], ids=["gpu", "cpu"]
)
def test_out_of_memory_halves_the_parts_and_keeps_the_batch(
    splits: tuple[Pairs, Pairs],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    class Large(Line):
        """Needs a device that holds two images; this one holds one."""

        parts: ClassVar[list[int]] = []

        def losses(
            self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
        ) -> Iterator[Loss]:
            if len(batch) > 1 and state.step > 3:
                raise error
            self.parts.append(len(batch))
            return super().losses(networks, batch, streams, state)

    whole, large = Line(recipe(), width=8), Large(recipe(), width=8)
    expected = loop_of(whole, splits, tmp_path / "whole")
    found = loop_of(large, splits, tmp_path / "large")
    expected.run()
    found.run()
    assert large.parts[:3] == [4, 4, 4] and set(large.parts[3:]) == {1}
    for key, value in state_of(found).items():
        torch.testing.assert_close(value, state_of(expected)[key], atol=1e-6, rtol=1e-5)
    assert (
        "ran out of memory at step 4; from now on it uses 4 micro-batches of 1 images"
        in caplog.text
    )
    large.parts = []
    again = loop_of(large, splits, tmp_path / "large")
    again.state = TrainState(step=4, images=16)
    again._advance(next(iter(BatchLoader(splits[0], 4, 0))))
    assert large.parts == [1, 1, 1, 1], "a restart remembers"


def test_operations_of_a_resumed_run_are_those_of_its_steps(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    """The first step of each process also encodes, whose operations no later step has."""

    class Encoding(Line):
        encoded = False

        def losses(
            self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
        ) -> Iterator[Loss]:
            if not self.encoded:
                torch.ones(100, 100) @ torch.ones(100, 100)
            self.encoded = True
            return super().losses(networks, batch, streams, state)

    class Ticks(Meter):
        found: ClassVar[list[float]] = []

        def tick(self, images: int = 0, flops: float = 0.0) -> None:
            self.found.append(flops)

    loop_of(Encoding(recipe(images=40)), splits, tmp_path).run()
    with Ticks(tmp_path, stage="a", kind="training") as meter:
        loop_of(Encoding(recipe()), splits, tmp_path).run(meter)
    first, *others = Ticks.found
    assert len(others) == 9 and len(set(others)) == 1
    assert first == others[0] + 2e6


def test_parts_of_a_larger_share_are_those_of_a_smaller_one_as_far_as_it_goes(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    """As after a restart with more processes."""
    (tmp_path / "memory.json").write_text('{"parts": 8}')
    assert loop_of(Line(recipe()), splits, tmp_path)._step.accumulation == 4
    (tmp_path / "memory.json").write_text('{"parts": 3}')
    assert loop_of(Line(recipe()), splits, tmp_path)._step.accumulation == 4


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a", "further; use smaller networks"),
        ("c-pretraining", "further; set sharded in stage_c.pretraining, use smaller networks"),
    ],
)
def test_an_image_that_does_not_fit_alone_is_told(
    splits: tuple[Pairs, Pairs], tmp_path: Path, name: RunName, advice: str
) -> None:
    """With keys that this stage has, and none else."""
    stage = Line(recipe())
    stage.name = name

    def fill(step: int, value: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("full")

    stage.disturb = fill
    with pytest.raises(TrainingError, match=rf"out of memory with micro-batches of 1, .*{advice}"):
        loop_of(stage, splits, tmp_path).run()


def test_memory_that_ends_where_parts_do_not_help_is_told(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    stage = Line(recipe())

    def full() -> Iterator[float]:
        raise torch.OutOfMemoryError("full")
        yield

    stage.losses_held_out = full()
    with pytest.raises(
        TrainingError, match=r"Stage a ran out of memory in .* validation.*validation_images"
    ):
        loop_of(stage, splits, tmp_path).run()
    assert loop_of(stage, splits, tmp_path).state.images == 16, "what was saved is kept"
