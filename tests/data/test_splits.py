"""Held-out images are never trained on, and are the same on every machine."""

import hashlib
import json

import pytest
from made_data import THREE, Sample, as_files, png, write, write_jsonl, write_tar

from wuerstchen.config import DataConfig
from wuerstchen.data import open_pairs
from wuerstchen.data.splits import assign_splits
from wuerstchen.errors import DataError


def keys(path, **options) -> tuple[list[str], list[str]]:
    train, test, report = open_pairs(DataConfig(path=str(path), **options))
    assert (report.train, report.test) == (len(train), len(test))
    return [pair.key for pair in train], [pair.key for pair in test]


def one(name: str) -> dict[str, bytes | str]:
    return {f"{name}.png": png(), f"{name}.txt": name}


@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_the_names_of_tars_name_the_split(held_out, tmp_path):
    write_tar(tmp_path / "train-00000.tar", one("a"))
    write_tar(tmp_path / f"{held_out}-00000.tar", one("b"))
    assert keys(tmp_path) == (["a"], ["b"])
    assert keys(tmp_path / f"{{train,{held_out}}}-00000.tar") == (["a"], ["b"])


def test_the_folders_of_tars_name_the_split_but_not_those_above(tmp_path):
    root = tmp_path / "test"
    write_tar(root / "train" / "0.tar", one("a"))
    write_tar(root / "test" / "0.tar", one("b"))
    assert keys(root) == (["a"], ["b"])
    assert keys(root / "{train,test}" / "*.tar") == (["a"], ["b"])
    assert keys(root / "train" / "0.tar") == (["a"], [])


def test_folders_of_images_name_the_split(tmp_path):
    write(tmp_path, {**one("train/a"), **one("train/deeper/test/b"), **one("test/c"), **one("d")})
    assert keys(tmp_path) == (["d.png", "train/a.png", "train/deeper/test/b.png"], ["test/c.png"])


def test_a_column_names_the_split_and_outranks_the_folder(tmp_path):
    samples = {
        "train/a": Sample((1, 1, 1), ["a"], {"split": "validation"}),
        "train/b": Sample((1, 1, 1), ["b"], {"split": "train"}),
        "c": Sample((1, 1, 1), ["c"]),
    }
    expected = (["c.png", "train/b.png"], ["train/a.png"])
    assert keys(write_jsonl(tmp_path / "table", samples)) == expected
    assert keys(write(tmp_path / "folder", as_files(samples))) == expected
    train, test = keys(write_tar(tmp_path / "tars" / "0.tar", as_files(samples)).parent)
    assert (sorted(train), test) == (["c", "train/b"], ["train/a"])


def test_named_splits_are_kept_whatever_the_share(tmp_path):
    write(tmp_path, {**one("train/a"), **one("test/b")})
    assert keys(tmp_path, test_fraction=0) == keys(tmp_path, test_fraction=0.4)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_first_test_images_are_of_many_objects_and_always_the_same(kind, tmp_path):
    files: dict[str, bytes | str] = {}
    for name in (f"{thing}{i}" for thing in "abcdefgh" for i in range(8)):
        files |= one(f"test/{name}")
    write(tmp_path / "f", {**files, **one("train/x")})
    write_tar(tmp_path / "t" / "test-0.tar", files)
    write_tar(tmp_path / "t" / "train-0.tar", one("x"))
    path = tmp_path / {"folder": "f", "tar": "t"}[kind]
    test = keys(path)[1]
    assert len(test) == 64 and test == keys(path, test_fraction=0.3)[1]
    assert test == sorted(test, key=lambda key: hashlib.md5(key.encode()).digest())
    assert len({key.removeprefix("test/")[0] for key in test[:8]}) >= 4


def test_the_share_is_decided_by_the_hash_of_the_group():
    groups = [f"group {i}" for i in range(1000)]
    splits = assign_splits([None] * 1000, groups, 0.1)
    for group, split in zip(groups, splits, strict=True):
        first_bits = int(hashlib.md5(group.encode()).hexdigest()[:8], 16)
        assert split == ("test" if first_bits < 0.1 * 2**32 else "train")
    assert 70 < splits.count("test") < 130


def test_all_members_of_a_group_land_on_one_side():
    groups = [f"group {i % 40}" for i in range(400)]
    splits = assign_splits([None] * 400, groups, 0.3)
    sides = {(group, split) for group, split in zip(groups, splits, strict=True)}
    assert len(sides) == 40
    assert {split for _, split in sides} == {"train", "test"}


def test_new_data_moves_no_old_group_to_the_other_side():
    groups = [f"group {i}" for i in range(300)]
    few = assign_splits([None] * 100, groups[:100], 0.2)
    assert assign_splits([None] * 300, groups, 0.2)[:100] == few


@pytest.mark.parametrize("share", [1e-9, 0.499])
@pytest.mark.parametrize("first", range(5))
def test_two_groups_are_one_on_each_side_whatever_they_hash_to(share, first):
    splits = assign_splits([None] * 3, [f"g{first}", f"g{first}", f"g{first + 1}"], share)
    assert set(splits) == {"train", "test"}


def test_one_group_is_trained_on_and_a_share_of_zero_holds_nothing_out():
    assert assign_splits([None] * 3, ["a"] * 3, 0.4) == ["train"] * 3
    assert assign_splits([None] * 50, [str(i) for i in range(50)], 0) == ["train"] * 50


def test_groups_come_from_the_side_field_or_else_are_single_images(tmp_path):
    samples = {
        **THREE,
        "alone": Sample((1, 1, 1), ["x"]),
        "number": Sample((1, 1, 1), ["y"], {"name": 3}),
    }
    path = str(write_jsonl(tmp_path, samples))
    pairs = open_pairs(DataConfig(path=path, test_fraction=0, balance_by="name"))[0]
    groups = {pair.key: pair.group for pair in pairs}
    assert groups == {
        "hearts/red.png": "heart",
        "hearts/blue.png": "heart",
        "leaf.png": "leaf",
        "alone.png": "alone.png",
        "number.png": "3",
    }


def test_an_unknown_side_field_is_an_error_with_the_known_ones(tmp_path):
    write(tmp_path, {**one("a"), "a.json": json.dumps({"name": "x", "tone": "y"})})
    with pytest.raises(DataError, match=r"data\.balance_by.*'nam'.*name, tone"):
        keys(tmp_path, balance_by="nam")
    (tmp_path / "a.json").unlink()
    with pytest.raises(DataError, match="no metadata fields"):
        keys(tmp_path, balance_by="name")
