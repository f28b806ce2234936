"""Checkpoints are whole or refused, hold nothing that runs, and outlive a disk that fills up."""

import errno
import json
import os
import re
import shutil
import subprocess
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
    assert {path.suffix or path.name for path in files} == {".safetensors", ".json", "SHA256SUMS"}


def flip(path: Path, place: float, bit: int = 0) -> None:
    """Flip one bit; place: 0 the first byte, 1 the last."""
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


def tensor_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def exchange(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def before(folder: Path) -> Path:
    """The older checkpoint."""
    return folder.with_name(f"{8:012d}")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped weight": (lambda folder: flip(tensor_file(folder), 0.9), "safetensors changed"),
    "flipped optimizer state": (lambda folder: flip(tensor_file(folder), 1.0), "changed"),
    "flipped header": (lambda folder: flip(tensor_file(folder), 0.1), "changed"),
    "flipped progress": (lambda folder: flip(folder / "progress.json", 0.6), "progress.json"),
    "flipped digest": (lambda folder: flip(folder / "SHA256SUMS", 0.1), "changed"),
    "flipped name": (lambda folder: flip(folder / "SHA256SUMS", 0.99, 1), "No such file"),
    "flipped line end": (lambda folder: flip(folder / "SHA256SUMS", 1.0), "not a list of digests"),
    "truncated": (lambda folder: os.truncate(tensor_file(folder), 100), "changed"),
    "emptied": (lambda folder: tensor_file(folder).write_bytes(b""), "changed"),
    "another file": (lambda folder: tensor_file(folder).write_bytes(b"not it"), "changed"),
    "missing": (lambda folder: tensor_file(folder).unlink(), "No such file: shard-00001-"),
    "missing progress": (lambda folder: (folder / "progress.json").unlink(), "No such file"),
    "half a progress": (lambda folder: (folder / "progress.json").write_text("{"), "Expecting"),
    "a list": (lambda folder: (folder / "progress.json").write_text("[]"), "not a JSON object"),
    "missing digests": (lambda folder: (folder / "SHA256SUMS").unlink(), "No such file"),
    "empty digests": (lambda folder: (folder / "SHA256SUMS").write_text(""), "list of digests"),
    "half the digests": (
        lambda folder: os.truncate(folder / "SHA256SUMS", 90),
        "not a list of digests",
    ),
    "foreign file": (
        lambda folder: shutil.copy(tensor_file(before(folder)), folder / "more.safetensors"),
        "more.safetensors is not a file of this checkpoint",
    ),
    "swapped tensors": (
        lambda folder: exchange(tensor_file(folder), tensor_file(before(folder))),
        "changed",
    ),
    "swapped folders": (
        lambda folder: [shutil.rmtree(folder), shutil.copytree(before(folder), folder)],
        "progress.json has 8 images",
    ),
}
DAMAGES_BOTH = {"swapped tensors"}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    saved: Checkpoints, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, words = DAMAGE[kind]
    folder = tmp_path / "checkpoints" / f"{16:012d}"
    damage(folder)
    if kind in DAMAGES_BOTH:
        with pytest.raises(TrainingError, match=rf"{folder.name}: expected .*{words}.*delete"):
            saved.newest()
        return
    found = saved.newest()
    assert found is not None and found.progress == facts(8)
    (message,) = [record.getMessage() for record in caplog.records]
    assert re.search(rf"{folder.name}: expected a complete .*{words}.*resumes from .*08\.", message)
    assert not folder.exists() and (folder.parent / f"{folder.name}.damaged").is_dir()
    values = tensors(0.0)
    load(found, values)
    assert all(torch.equal(values[name], tensor) for name, tensor in tensors(8.0).items())


def test_only_damaged_checkpoints_are_refused_and_kept(saved: Checkpoints, tmp_path: Path) -> None:
    """Starting from nothing would lose the work in silence."""
    folders = sorted((tmp_path / "checkpoints").iterdir())
    for folder in folders:
        flip(tensor_file(folder), 0.9)
    expected = r"16: expected a complete .*changed.* no other to resume from; .* delete"
    with pytest.raises(TrainingError, match=expected):
        saved.newest()
    assert sorted((tmp_path / "checkpoints").iterdir()) == folders


@pytest.mark.parametrize("damaged", [False, True])
def test_checkpoints_of_versions_without_digests_are_read(
    saved: Checkpoints, tmp_path: Path, damaged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "checkpoints" / f"{16:012d}"
    path = tensor_file(folder)
    sizes = {path.name: path.stat().st_size}
    (folder / "progress.json").write_text(json.dumps({**facts(16), "files": sizes}))
    (folder / "SHA256SUMS").unlink()
    if damaged:
        os.truncate(path, 100)
    found = saved.newest()
    assert found is not None and found.progress == facts(8 if damaged else 16)
    assert "has no digests" in caplog.text
    assert ("has 100 bytes instead of" in caplog.text) == damaged


def test_the_next_best_replaces_a_damaged_best_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Checkpoints(tmp_path, keep=3)
    for images, loss in ((8, 2.0), (16, 1.0), (24, 1.0)):
        kept.save(tensors(float(images)), {**facts(images), "held_out": loss})
    flip(tensor_file(tmp_path / "checkpoints" / f"{16:012d}"), 0.9)
    best = kept.best()
    assert best is not None and best.progress["images"] == 24
    assert "The stage ends with the weights of" in caplog.text


def test_digests_are_those_of_sha256sum(saved: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / f"{16:012d}"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)


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
