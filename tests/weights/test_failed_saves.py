"""A save that fails leaves the previous files unchanged, byte for byte."""

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_networks import (
    COMPRESSOR,
    A,
    B,
    contents,
    small_text,
)
from torch import nn

from wuerstchen import weights
from wuerstchen.errors import SaveError
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.weights import files


@contextmanager
def small_files_only(limit: int) -> Iterator[None]:
    """Make the system refuse files over `limit` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_grow_leaves_the_old_component(folder: Path) -> None:
    before = contents(folder)
    with small_files_only(4096):
        for component, network in (
            (weights.stage_a, StageA(A)),
            (weights.stage_b, StageB(B)),
            (weights.compressor, Compressor(COMPRESSOR)),
            (weights.text_c, small_text()),
        ):
            with pytest.raises(SaveError, match="the previous contents are unchanged"):
                component.save(folder, network)
    assert contents(folder) == before


def test_a_rename_that_fails_leaves_both_folders_of_a_text_encoder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = contents(folder), os.replace
    for good in range(4):  # two folders, each backed up and replaced
        calls: list[Path] = []

        def fails_once(source: Path, target: Path, good: int = good, calls=calls) -> None:
            calls.append(source)
            if len(calls) == good + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rename(source, target)

        monkeypatch.setattr(files.os, "replace", fails_once)
        with pytest.raises(SaveError, match=r"No space left on device.*unchanged"):
            weights.text_c.save(folder, small_text(seed=9))
        monkeypatch.undo()
        assert contents(folder) == before


def test_an_index_that_cannot_be_written_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = contents(folder), os.replace

    def no_room(source: Path, target: Path) -> None:
        if Path(target).name == "model_index.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(SaveError, match=r"model_index.json .*No space left"):
        weights.write_index(folder)
    assert contents(folder) == before


def test_a_folder_that_cannot_be_made_is_a_save_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError, match="Not a directory"):
        weights.stage_a.save(tmp_path / "file" / "model", StageA(A))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make `folder` read-only; root, which can always write, becomes nobody meanwhile."""
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_read_only_folder_is_a_save_error_and_keeps_its_component(whole: Path) -> None:
    with tempfile.TemporaryDirectory() as outer:  # the user nobody cannot enter pytest's folders
        Path(outer).chmod(0o755)
        folder = Path(shutil.copytree(whole, Path(outer) / "model"))
        with read_only(folder):
            with pytest.raises(SaveError, match="Permission denied"):
                weights.stage_a.save(folder, StageA(A))
            with pytest.raises(SaveError, match="Permission denied"):
                weights.text_b.save(folder, small_text())
            with pytest.raises(SaveError, match="Permission denied"):
                weights.write_index(folder)
        assert contents(folder) == contents(whole)


def test_weights_that_are_not_finite_do_not_replace_good_ones(folder: Path) -> None:
    before = contents(folder)
    network = StageA(A)
    nn.init.constant_(network.codebook.embedding.weight, 1e6)
    with pytest.raises(
        SaveError, match=r"vquantizer.embedding.weight .* not finite as torch.float16"
    ):
        weights.stage_a.save(folder, network, torch.float16)
    nn.init.constant_(network.codebook.embedding.weight, float("nan"))
    with pytest.raises(SaveError, match="not finite"):
        weights.stage_a.save(folder, network)
    assert contents(folder) == before


def test_a_process_killed_between_two_renames_loses_nothing(folder: Path) -> None:
    expected = contents(folder / "vqgan")
    (folder / "vqgan").rename(folder / ".vqgan.old")
    (folder / ".vqgan.new").mkdir()
    (folder / ".vqgan.new" / "config.json").write_text("half")
    assert weights.has_component(folder, "stage_a")
    network = weights.stage_a.load(folder)
    weights.stage_a.save(folder, network)
    assert contents(folder / "vqgan") == expected
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_component_is_replaced_as_a_whole(folder: Path) -> None:
    (folder / "vqgan" / "diffusion_pytorch_model.fp16.safetensors").write_text("stale")
    weights.stage_a.save(folder, StageA(A.model_copy(update={"depth": 1})))
    assert {path.name for path in (folder / "vqgan").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    assert weights.stage_a.load(folder).config.depth == 1
