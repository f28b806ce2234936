"""The same content gives the same pairs, however it is packed."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from made_data import (
    THREE,
    Sample,
    as_files,
    png,
    to_bytes,
    write,
    write_csv,
    write_jsonl,
    write_tar,
)
from PIL import Image, features

from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs, sources
from wuerstchen.data.sources import _expand_braces, pattern_matches
from wuerstchen.errors import ConfigError, DataError


def open_all(path, **options) -> Pairs:
    return open_pairs(DataConfig(path=str(path), test_fraction=0, **options))[0]


def content(pairs: Pairs) -> list[tuple[tuple[str, ...], str, list[int]]]:
    """Captions, groups and colours of pairs, without their keys and order."""
    shown = [pairs.image(i)[:, 0, 0].tolist() for i in range(len(pairs))]
    return sorted((p.captions, p.group, rgb) for p, rgb in zip(pairs, shown, strict=True))


EXPECTED = sorted(
    (tuple(sample.captions), str(sample.fields["name"]), list(sample.colour))
    for sample in THREE.values()
)

PACKERS = {
    "folder": lambda root: write(root, as_files(THREE)),
    "jsonl": lambda root: write_jsonl(root, THREE),
    "csv": lambda root: write_csv(root, THREE),
    "one tar": lambda root: write_tar(root / "all.tar", as_files(THREE)),
    "folder of tars": lambda root: (
        write_tar(root / "0.tar", as_files({"leaf": THREE["leaf"]})).parent,
        write_tar(root / "deeper" / "1.tar", as_files({k: THREE[k] for k in list(THREE)[:2]})),
    )[0],
}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_kind_of_source_gives_the_same_pairs(kind, tmp_path):
    assert content(open_all(PACKERS[kind](tmp_path), balance_by="name")) == EXPECTED


@pytest.mark.parametrize("kind", PACKERS)
def test_keys_are_unique_and_the_order_does_not_change(kind, tmp_path):
    path = PACKERS[kind](tmp_path)
    keys = [pair.key for pair in open_all(path)]
    assert len(set(keys)) == 3
    assert keys == [pair.key for pair in open_all(path)]


@pytest.mark.parametrize(
    "pattern",
    ["{00000..00002}.tar", "{0000{0,1},00002}.tar", "*.tar", "0000[0-2].tar", "{0000*,*2}.tar"],
)
def test_braces_and_wildcards_name_the_same_tars_as_their_folder(pattern, tmp_path):
    for number, (stem, sample) in enumerate(THREE.items()):
        write_tar(tmp_path / f"{number:05d}.tar", as_files({stem: sample}))
    assert content(open_all(tmp_path / pattern, balance_by="name")) == EXPECTED
    assert [p.key for p in open_all(tmp_path / pattern)] == [p.key for p in open_all(tmp_path)]


def test_a_brace_range_names_only_its_own_tars(tmp_path):
    for number in range(12):
        write_tar(tmp_path / f"{number:02d}.tar", as_files({f"k{number}": THREE["leaf"]}))
    assert [pair.key for pair in open_all(tmp_path / "{08..10}.tar")] == ["k8", "k9", "k10"]


@pytest.mark.parametrize(
    "braces",
    ["{1..3}", "{3..1}", "{08..10}", "{10..08}", "{9..11}", "{11..9}", "{1..010}", "{a,b}"],
)
def test_braces_expand_as_in_bash(braces):
    done = subprocess.run(["bash", "-c", f"echo {braces}"], capture_output=True, check=True)
    for name in done.stdout.decode().split():
        assert pattern_matches(f"{braces}.tar", Path(f"{name}.tar"))
    assert list(_expand_braces(braces)) == done.stdout.decode().split()


@pytest.mark.parametrize("braces", ["{0..999999999}", "{999999999..0}"])
def test_a_range_of_too_many_names_is_refused(braces, tmp_path, monkeypatch):
    assert sources._MOST_PATTERNS == 1_000_000  # which takes seconds to expand
    monkeypatch.setattr(sources, "_MOST_PATTERNS", 1000)
    with pytest.raises(DataError, match=r"at most 1,000 names.*smaller range"):
        open_all(tmp_path / f"{braces}.tar")


@pytest.mark.parametrize(
    ("braces", "message"), [("{1..1000}", "not found"), ("{1..1001}", "at most 1,000 names")]
)
def test_the_largest_number_of_names_is_not_too_many(braces, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MOST_PATTERNS", 1000)
    with pytest.raises(DataError, match=message):
        open_all(tmp_path / f"{braces}.tar")


def test_a_missing_tar_of_a_brace_range_is_named(tmp_path):
    write_tar(tmp_path / "0.tar", as_files(THREE))
    with pytest.raises(DataError, match=r"1\.tar"):
        open_all(tmp_path / "{0..1}.tar")


def test_captions_of_text_and_json_are_joined_in_order_without_repeats(tmp_path):
    side = {"captions": ["two", " three "], "caption": "four"}
    files = {"a.png": png(), "a.txt": "one\n\n  two  \r\n", "a.json": json.dumps(side)}
    folder, tar = write(tmp_path / "f", files), write_tar(tmp_path / "t.tar", files)
    for path in (folder, tar):
        pairs = open_all(path, caption_per_line=True)
        assert pairs[0].captions == ("one", "two", "three", "four")


def test_rows_of_one_image_are_its_captions(tmp_path):
    rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "a.png", "text": "two"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    write(tmp_path, {"a.png": png(), "metadata.jsonl": lines})
    assert open_all(tmp_path)[0].captions == ("one", "two")


def test_a_caption_may_begin_with_a_bracket(tmp_path):
    write(tmp_path, {"a.png": png(), "metadata.csv": "file_name,text\na.png,[sic] a heart\n"})
    assert open_all(tmp_path)[0].captions == ("[sic] a heart",)


def test_a_table_names_images_relative_to_itself_and_in_any_format_pillow_reads(tmp_path):
    write(tmp_path, {"train/x.dat": png(), "train/metadata.csv": "file_name,text\nx.dat,one\n"})
    assert [pair.key for pair in open_all(tmp_path)] == ["train/x.dat"]


def test_a_table_reaches_no_image_outside_its_folder(tmp_path):
    write(tmp_path, {"secret.png": png(), "in/a.png": png()})
    write(tmp_path, {"in/metadata.csv": "file_name,text\n../secret.png,one\na.png,two\n"})
    pairs, _, report = open_pairs(DataConfig(path=str(tmp_path / "in"), test_fraction=0))
    assert [pair.key for pair in pairs] == ["a.png"]
    assert report.skipped == {"caption without an image": ["../secret.png"]}


def test_images_of_one_name_and_two_formats_are_two_pairs_of_a_folder(tmp_path):
    write(tmp_path, {"a.png": png(), "a.bmp": png(), "a.txt": "one"})
    assert [pair.key for pair in open_all(tmp_path)] == ["a.bmp", "a.png"]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow is built without AVIF")
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_avif_is_read(kind, tmp_path):
    colour = (200, 10, 30)
    files = {"a.avif": to_bytes(Image.new("RGB", (16, 16), colour), "AVIF"), "a.txt": "one"}
    write(tmp_path, files) if kind == "folder" else write_tar(tmp_path / "t.tar", files)
    image = open_all(tmp_path).image(0).int()
    assert (image - torch.tensor(colour).view(3, 1, 1)).abs().max() <= 8


def test_the_key_in_a_tar_keeps_the_dots_of_the_name(tmp_path):
    write_tar(tmp_path / "a.tar", {"x/photo.v2.PNG": png(), "x/photo.v2.txt": "one"})
    assert [pair.key for pair in open_all(tmp_path)] == ["x/photo.v2"]


def test_of_two_members_of_one_name_the_later_wins_and_the_earlier_is_reported(tmp_path):
    members = [("a.png", png((1, 1, 1))), ("a.txt", "old"), ("a.txt", "new"), ("a.png", png())]
    path = write_tar(tmp_path / "t.tar", members)
    pairs, _, report = open_pairs(DataConfig(path=str(path), test_fraction=0))
    assert pairs[0].captions == ("new",)
    assert pairs.image(0)[:, 0, 0].tolist() == [200, 10, 30]
    names = ["t.tar/a.txt", "t.tar/a.png"]
    assert report.skipped == {"replaced by a later file of the same name": names}


def test_one_key_in_two_tars_is_two_pairs(tmp_path):
    for name in ("0", "1"):
        write_tar(tmp_path / f"{name}.tar", {"a.png": png(), "a.txt": name})
    assert [(p.key, p.captions) for p in open_all(tmp_path)] == [("0/a", ("0",)), ("1/a", ("1",))]


def test_hidden_files_are_no_data(tmp_path):
    files = {"a.png": png(), "a.txt": "one", "._a.png": b"x", ".cache/b.png": b"x", "._b.txt": "x"}
    _, _, report = open_pairs(DataConfig(path=str(write(tmp_path / "f", files)), test_fraction=0))
    assert report.found == report.used == 1
    _, _, report = open_pairs(DataConfig(path=str(write_tar(tmp_path / "a.tar", files))))
    assert "._a" not in report.summary()


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "elsewhere", {"a.png": png(), "a.txt": "one"})
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "linked")
    os.symlink(tmp_path / "data", tmp_path / "elsewhere" / "loop")
    assert [pair.key for pair in open_all(tmp_path / "data")] == ["linked/a.png"]


def test_a_path_that_is_empty_or_leads_nowhere_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"set data\.path="):
        open_all("")
    with pytest.raises(DataError, match=r"not found: .*gone"):
        open_all(tmp_path / "gone")
    with pytest.raises(DataError, match=r"not found: .*gone-"):
        open_all(tmp_path / "gone-*.tar")


def test_a_path_that_holds_something_else_is_explained(tmp_path):
    write(tmp_path, {"folder/notes.md": "x", "list.parquet": "x", "no.tar": "x" * 2000})
    with pytest.raises(DataError, match="found 1 file, but none of these"):
        open_all(tmp_path / "folder")
    with pytest.raises(DataError, match=r"found .*list\.parquet"):
        open_all(tmp_path / "list.parquet")
    with pytest.raises(DataError, match=r"1 × not an uncompressed tar \(no\.tar: "):
        open_all(tmp_path / "no.tar")


def test_a_compressed_tar_is_explained(tmp_path):
    plain = write_tar(tmp_path / "plain.tar", as_files(THREE)).read_bytes()
    write(tmp_path, {"packed.tar": gzip.compress(plain)})
    with pytest.raises(DataError, match=r"1 × not an uncompressed tar \(packed\.tar: "):
        open_all(tmp_path / "packed.tar")


def test_a_table_without_file_names_is_explained(tmp_path):
    write(tmp_path, {"a.png": png(), "metadata.csv": "url,text\na.png,one\n"})
    with pytest.raises(
        DataError, match=r"without a column file_name \(metadata\.csv has url, text"
    ):
        open_all(tmp_path)


def test_a_table_that_is_not_utf8_is_explained(tmp_path):
    write(tmp_path, {"a.png": png(), "metadata.csv": "file_name,text\na.png,é\n".encode("latin1")})
    with pytest.raises(DataError, match="UTF-8"):
        open_all(tmp_path)


def test_an_unknown_background_is_found_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="blurple"):
        open_all(tmp_path / "gone", background="blurple")


def test_images_are_the_same_with_and_without_a_cache(tmp_path):
    write(tmp_path, as_files({f"k{i}": Sample((i, 2 * i, 90), ["x"]) for i in range(9)}))
    kept, fresh = open_all(tmp_path, cache_gib=1), open_all(tmp_path, cache_gib=0)
    for i in range(9):
        assert torch.equal(kept.image(i), fresh.image(i))


def test_images_in_memory_need_no_file_and_others_say_what_happened(tmp_path):
    room_for_two = 2 * 3 * 128 * 128 / 2**30
    write(tmp_path, as_files(THREE))
    pairs = open_all(tmp_path, cache_gib=room_for_two)
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    assert pairs.image(0).shape == pairs.image(1).shape == (3, 128, 128)
    with pytest.raises(DataError, match=r"leaf\.png.*could be read when the data was opened"):
        pairs.image(2)
