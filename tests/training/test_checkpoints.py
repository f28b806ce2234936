"""Checkpoints are whole or refused, hold nothing that runs, and outlive a disk that fills up."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.training import checkpoints
from wuerstchen.training.checkpoints import Checkpoints, load


def tensors(value: float) -> dict[str, Tensor]:
    """Of the kinds that a training has: weights, channels-last ones, counters, single numbers."""
    return {
        "network.weight": torch.full((6, 5), value),
        "network.kernel": torch.full((4, 3, 3, 3), value).contiguous(
            memory_format=torch.channels_last
        ),
        "average.count": torch.tensor(int(value)),
        "optimizer.step": torch.tensor(value),
    }


def facts(images: int) -> checkpoints.Progress:
    return {"images": images, "smooth": 0.1 + 0.2, "best": None}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Two checkpoints, at 8 and at 16 images."""
    kept = Checkpoints(tmp_path, keep=2)
    for images in (8, 16):
        kept.save(tensors(float(images)), facts(images))
    return kept


def test_every_bit_comes_back(saved: Checkpoints) -> None:
    newest = saved.newest()
    assert newest is not None and newest.progress == facts(16)
    found = tensors(0.0)
    load(newest, found)
    for name, tensor in tensors(16.0).items():
        assert torch.equal(found[name], tensor), name
    assert found["network.kernel"].is_contiguous(memory_format=torch.channels_last)


def test_nothing_in_a_checkpoint_is_a_pickle(saved: Checkpoints, tmp_path: Path) -> None:
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), "No such file"),
        (lambda folder: (folder / "progress.json").write_text("{"), "damaged one"),
        (lambda folder: (folder / "progress.json").write_text("[]"), "damaged one"),
        (lambda folder: (folder / "progress.json").unlink(), "No such file"),
        (
            lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"not it"),
            "has 6 bytes instead of",
        ),
    ],
    ids=["file gone", "half a JSON", "another JSON", "no JSON", "another file"],
)
def test_damage_is_named_and_the_one_before_is_still_there(
    saved: Checkpoints, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "checkpoints" / f"{16:012d}"
    damage(folder)
    expected = rf"{folder.name}: expected a complete .*{words}.*delete"
    with pytest.raises(TrainingError, match=expected):
        saved.newest()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    before = saved.newest()
    assert before is not None and before.progress["images"] == 8


def test_other_networks_are_told_by_the_first_tensor_that_differs(saved: Checkpoints) -> None:
    newest = saved.newest()
    assert newest is not None
    wider = tensors(0.0) | {"network.weight": torch.zeros(7, 5)}
    with pytest.raises(TrainingError, match=r"network.weight has the shape \[6, 5\] instead"):
        load(newest, wider)
    with pytest.raises(TrainingError, match=r"network.more is missing"):
        load(newest, tensors(0.0) | {"network.more": torch.zeros(1)})


def test_a_disk_that_fills_up_in_the_second_file_costs_nothing(
    saved: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor in a file of its own; the disk is full after the first."""
    monkeypatch.setattr(checkpoints, "FILE_SIZE", 0)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    written: list[str] = []
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if "w" in mode and path.suffix == ".safetensors":
            written.append(path.name)
            if len(written) > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SaveError, match=r"000000000024 could not be written \(No space left"):
        saved.save(tensors(24.0), facts(24))
    monkeypatch.undo()
    assert len(written) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        f"{images:012d}" for images in (8, 16)
    ]
