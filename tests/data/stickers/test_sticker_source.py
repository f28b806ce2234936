"""Scenes composed in memory are those of the tars, in any order, and depend on stickers alone."""

import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from made_data import to_bytes, write_tar
from made_stickers import COLOURS, HELD_OUT, TRAIN, sticker, write_set
from small_runs import run, write_images
from torch import Tensor

from wuerstchen.config import DataConfig, load_data
from wuerstchen.data import BatchLoader, Pairs, open_pairs
from wuerstchen.data.stickers import composer
from wuerstchen.errors import ConfigError, DataError, WuerstchenError

NEW = (0, 255, 200)
"""A colour of no sticker and of no background."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def opened(folder: Path, scenes: int = 30, **more: object) -> tuple[Pairs, Pairs]:
    config = DataConfig.model_validate({"path": str(folder), "scenes": scenes, **more})
    train, test, report = open_pairs(config)
    assert (report.train, report.test) == (len(train), len(test)) == (scenes, 500)
    return train, test


def shows(image: Tensor, colour: tuple[int, int, int]) -> bool:
    """Whether a (3, H, W) image has more of this colour than edges could."""
    distances = (image.permute(1, 2, 0).float() - image.new_tensor(colour).float()).norm(dim=-1)
    return int((distances < 20).sum()) > 20


@pytest.mark.parametrize("size", [128, 256])
def test_they_are_the_scenes_that_another_process_writes(
    folder: Path, tmp_path: Path, size: int
) -> None:
    words = (folder, tmp_path / "scenes", "--count", 30, "--held-out", 5, "--size", size)
    result = run("stickers", "compose", *words)
    assert result.returncode == 0, result.stderr
    written_train, written_test, _ = open_pairs(
        DataConfig(path=str(tmp_path / "scenes"), size=size)
    )
    train, test = opened(folder, size=size, cache_gib=0.0)
    for i in reversed(range(30)):
        assert train[i].captions == written_train[i].captions
        assert train.image(i).equal(written_train.image(i))
    by_key = {pair.key[-8:]: i for i, pair in enumerate(written_test)}
    for i in range(5):
        of_test = by_key[test[i].key[-8:]]
        assert test[i].captions == written_test[of_test].captions
        assert test.image(i).equal(written_test.image(of_test))
    assert train.shapes[0] == (size, size)


def test_no_training_scene_has_a_held_out_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path, TRAIN)
    for name in {name for name, _ in HELD_OUT}:
        monkeypatch.setitem(COLOURS, name, NEW)
    write_set(tmp_path, [], HELD_OUT)
    train, test = opened(tmp_path, 120)
    assert not any(shows(train.image(i), NEW) for i in range(120))
    assert all(shows(test.image(i), NEW) for i in range(50))


def test_a_loader_gives_every_scene_once_per_epoch_with_changing_captions(folder: Path) -> None:
    train, _ = opened(folder, 12)
    epochs = 6
    seen: dict[str, list[str]] = {}
    for batch in islice(BatchLoader(train, 4, seed=3), 3 * epochs):
        for i, image, caption in zip(batch.indices, batch.images, batch.captions, strict=True):
            assert image.equal(train.image(i).float() / 255)
            assert caption in train[i].captions
            seen.setdefault(train[i].key, []).append(caption)
    assert len(seen) == 12 and all(len(captions) == epochs for captions in seen.values())
    assert all(len(set(captions)) > 1 for captions in seen.values())


def test_several_processes_and_a_resumed_run_see_the_batches_of_one(folder: Path) -> None:
    def batches(seen: int, rank: int = 0, world: int = 1) -> list[tuple[list[str], Tensor]]:
        train, _ = opened(folder, 12)
        loader = BatchLoader(train, 4, seed=3, seen=seen, rank=rank, world=world)
        return [(batch.captions, batch.images) for batch in islice(loader, 8 - seen // 4)]

    whole, resumed = batches(0), batches(16)
    halves = zip(batches(0, 0, 2), batches(0, 1, 2), strict=True)
    for (captions, images), (first, second) in zip(whole, halves, strict=True):
        assert captions == first[0] + second[0]
        assert images[:2].equal(first[1]) and images[2:].equal(second[1])
    for one, other in zip(whole[4:], resumed, strict=True):
        assert one[0] == other[0] and one[1].equal(other[1])


def test_the_digest_is_of_the_stickers_and_not_of_their_place(folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    for tar in moved.iterdir():
        os.utime(tar, (1, 1))
    assert [s.digest() for s in opened(folder)] == [s.digest() for s in opened(moved)]


@pytest.mark.parametrize("change", ["a pixel", "a keyword", "scenes", "size", "version"])
def test_the_digest_changes_with_anything_that_changes_a_scene(
    folder: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, settings = Path(shutil.copytree(folder, tmp_path / "changed")), {}
    tar = changed / "train-00000.tar"
    if change == "a pixel":
        image = sticker(*TRAIN[0])
        image.putpixel((20, 20), (200, 4, 7, 255))
        old, new = (to_bytes(each, "WEBP", lossless=True) for each in (sticker(*TRAIN[0]), image))
        key = f"{TRAIN[0][1]}__{TRAIN[0][0]}.webp"
        tar.write_bytes(_with_member(tar, key, old, new))
    elif change == "a keyword":
        tar.write_bytes(tar.read_bytes().replace(b"friend", b"fellow", 1))
    elif change != "version":
        settings = {"scenes": {"scenes": 31}, "size": {"size": 256}}[change]
    before = opened(folder)[0]
    if change == "version":
        monkeypatch.setattr(composer, "VERSION", composer.VERSION + 1)
    after = opened(changed, **settings)[0]
    assert before.digest(dated=False) != after.digest(dated=False)


def _with_member(tar: Path, name: str, old: bytes, new: bytes) -> bytes:
    """The tar with the content of one member changed."""
    import tarfile

    with tarfile.open(tar) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert files[name] == old
    write_tar(tar, files | {name: new})
    return tar.read_bytes()


def test_balanced_groups_are_the_objects(folder: Path) -> None:
    train, _ = opened(folder, 40, balance_by="name")
    assert {pair.group for pair in train} == set(COLOURS)
    groups: dict[int, set[str]] = {}
    for number, pair in zip(train.groups, train, strict=True):
        groups.setdefault(int(number), set()).add(pair.group)
    assert all(len(names) == 1 for names in groups.values()) and len(groups) == len(COLOURS)


def test_buckets_have_the_square_alone(folder: Path) -> None:
    train, _ = opened(folder, 3, size=384, buckets=True)
    assert {train.shapes[k] for k in train.buckets} == {(384, 384)}


def test_images_beyond_the_memory_limit_are_composed_again(folder: Path) -> None:
    train, _ = opened(folder, 4, cache_gib=2 * 3 * 128**2 / 2**30)
    kept = [train.image(i) is train.image(i) for i in range(4)]
    assert kept == [True, True, False, False]
    assert train.image(3).equal(train.image(3))


def no_folder(path: Path) -> None:
    del path


def photos(path: Path) -> None:
    write_images(path)


def without_held_out(path: Path) -> None:
    write_set(path, TRAIN)


def without_style(path: Path) -> None:
    image = to_bytes(sticker("cat", "flat"), "WEBP")
    for part in ("train", "test-cells"):
        write_tar(path / f"{part}-00000.tar", {"1.webp": image, "1.json": '{"name": "cat"}'})


def held_out_in_training(path: Path) -> None:
    write_set(path, [*TRAIN, HELD_OUT[0]], HELD_OUT)


def damaged(path: Path) -> None:
    write_set(path, TRAIN, HELD_OUT)
    image = to_bytes(sticker(*HELD_OUT[0]), "WEBP", lossless=True)
    tar = path / "test-cells-00000.tar"
    tar.write_bytes(_with_member(tar, "blob__cat.webp", image, b"no image"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_folder, r"expected a folder that .* wrote, .* found no such folder; .* data.scenes=0"),
        (photos, r"found no train-00000.tar and no test-cells-00000.tar in it; name such a folder"),
        (without_held_out, r"found no test-cells-00000.tar in it; name such a folder"),
        (without_style, r"expected an image with the fields name and style .* style None"),
        (held_out_in_training, r"share no pair .* 'cat' in 'blob'; split the set again"),
        (damaged, r"test-cells-00000.tar: expected the sticker blob__cat to decode, .* copy the"),
    ],
)
def test_what_is_no_set_of_stickers_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "set"
    make(path)
    with pytest.raises(DataError, match=message):
        open_pairs(DataConfig(path=str(path), scenes=10))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (["data.path="], DataError, r"data.path is '': .* found an empty path"),
        (["data.balance_by=style"], DataError, r"found 'style'; the data has name\.$"),
        (["data.background=nocolour"], ConfigError, "nocolour"),
        (["data.background=red"], ConfigError, r"data.background must be 'white' .* found 'red'"),
        (["data.caption=a cat"], ConfigError, r"data.caption must be '' with data.scenes=10, .*"),
        (["data.caption_per_line=true"], ConfigError, r"per_line must be false .* found true"),
        (["data.test_fraction=0.1"], ConfigError, r"test_fraction must be 0.05 .* found 0.1"),
        (["data.scenes=-1"], ConfigError, r"data.scenes.*-1"),
        (["data.scenes=99999999999"], ConfigError, r"data.scenes.*99999999999"),
        (["data.scenes=many"], ConfigError, r"data.scenes.*many"),
    ],
)
def test_settings_that_scenes_do_not_have_are_refused(
    folder: Path, settings: list[str], kind: type[WuerstchenError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        open_pairs(load_data([f"data.path={folder}", "data.scenes=10", *settings]))
