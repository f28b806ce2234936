"""Training reads the tars of scenes, and they are reproducible."""

import tarfile
from pathlib import Path

import pytest
from made_stickers import HELD_OUT, TRAIN, write_set
from typer.testing import CliRunner

from wuerstchen.cli import app
from wuerstchen.config import DataConfig
from wuerstchen.data import open_pairs
from wuerstchen.data.stickers import (
    Composer,
    Truth,
    open_sprites,
    read_truth,
    write_scenes,
    writer,
)
from wuerstchen.errors import ConfigError, SaveError


def command(*arguments: object) -> int:
    result = CliRunner().invoke(app, ["stickers", "compose", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code


def truths(tar: Path) -> list[Truth]:
    with tarfile.open(tar) as archive:
        members = [m for m in archive if m.name.endswith(".json")]
        return [read_truth(archive.extractfile(member).read()) for member in members]  # type: ignore[union-attr]


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a folder and its folders."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_training_reads_what_the_command_writes(tmp_path: Path) -> None:
    stickers, scenes = write_set(tmp_path / "stickers", TRAIN, HELD_OUT), tmp_path / "scenes"
    assert command(stickers, scenes, "--count", 20, "--held-out", 6) == 0
    train, test, report = open_pairs(DataConfig(path=str(scenes), size=128))
    assert (len(train), len(test), report.skipped) == (20, 6, {})
    composer = Composer(open_sprites(stickers))
    for index in range(20):
        composed = composer[index]
        assert train[index].captions == tuple(each.text for each in composed.captions)
        pixels = train.image(index).permute(1, 2, 0).numpy()
        assert pixels.tobytes() == composed.image.tobytes()


def test_the_truth_in_the_tar_is_that_of_the_composer(tmp_path: Path) -> None:
    stickers = write_set(tmp_path / "stickers", TRAIN, HELD_OUT)
    composer = Composer(open_sprites(stickers), seed=3)
    (tar,) = write_scenes(composer, 12, tmp_path / "scenes")
    assert truths(tar) == [composer[index].truth for index in range(12)]


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    stickers = write_set(tmp_path / "stickers", TRAIN, HELD_OUT)
    for name in ("one", "two"):
        command(stickers, tmp_path / name, "--count", 8, "--held-out", 4)
    for tar in ("train-00000.tar", "test-cells-00000.tar"):
        assert (tmp_path / "one" / tar).read_bytes() == (tmp_path / "two" / tar).read_bytes()


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SCENES_PER_TAR", 4)
    composer = Composer(open_sprites(write_set(tmp_path / "stickers", TRAIN, HELD_OUT)))
    written: list[int] = []
    for workers in (1, 2):
        write_scenes(composer, 10, tmp_path / str(workers), workers, written.append)
    assert sorted(written) == [2, 2, 4, 4, 4, 4]
    for tar in (f"train-0000{k}.tar" for k in range(3)):
        assert (tmp_path / "1" / tar).read_bytes() == (tmp_path / "2" / tar).read_bytes()


def test_fractions_above_one_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    stickers = write_set(tmp_path / "stickers", TRAIN, HELD_OUT)
    with pytest.raises(ConfigError, match="sum is at most 1"):
        command(stickers, tmp_path / "scenes", "--pair", 0.7, "--several", 0.4)
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("out", ["stickers", "stickers/scenes", ".", "link"])
def test_the_sticker_set_is_never_written_to(tmp_path: Path, out: str) -> None:
    stickers = write_set(tmp_path / "stickers", TRAIN, HELD_OUT)
    (tmp_path / "link").symlink_to(stickers)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"STICKERS .* is an input; choose another path"):
        command(stickers, tmp_path / out, "--count", 2, "--held-out", 0)
    assert contents(tmp_path) == before


def test_scenes_of_an_earlier_run_are_not_mixed_with_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SCENES_PER_TAR", 2)
    stickers, scenes = write_set(tmp_path / "stickers", TRAIN, HELD_OUT), tmp_path / "scenes"
    scenes.mkdir()
    command(stickers, scenes, "--count", 4, "--held-out", 0)
    before = contents(scenes)
    assert len(before) == 2
    with pytest.raises(SaveError, match=r"expected a new or empty folder .* delete the folder"):
        command(stickers, scenes, "--count", 2, "--held-out", 0)
    assert contents(scenes) == before
