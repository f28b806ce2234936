"""Nothing is skipped silently: every reason is counted, with the names of the files."""

import gzip
import json
import os

import pytest
from made_data import Sample, png, png_claiming, write, write_jsonl, write_tar
from made_sources import dropped, rows

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import Report, open_pairs
from wuerstchen.data.images import MAX_PIXELS
from wuerstchen.errors import DataError
from wuerstchen.prepare.prepare import prepare

FILES = {
    "good.png": png(),
    "good.txt": "a good one",
    "cut.png": png(side=64)[:100],
    "cut.txt": "cut off",
    "huge.png": png_claiming(MAX_PIXELS // 1000 + 1, 1000),
    "huge.txt": "too large",
    "silent.png": png(),
    "blank.png": png(),
    "blank.txt": " \n\n\t\n",
    "latin.png": png(),
    "latin.txt": "é".encode("latin1"),
    "lonely.txt": "no image",
    "broken.png": png(),
    "broken.txt": "its JSON is cut off",
    "broken.json": '{"name": ',
    "list.png": png(),
    "list.txt": "its JSON is no table",
    "list.json": "[1, 2]",
}

REASONS = {
    "image does not decode": ["cut"],
    "image over the pixel limit": ["huge"],
    "image without a caption": ["silent"],
    "caption is empty": ["blank"],
    "caption is not UTF-8 text": ["latin"],
    "caption without an image": ["lonely"],
    "metadata is not a JSON object": ["broken", "list"],
}


def pairs_named(letters: str) -> dict[str, bytes | str]:
    """Four blocks of 512 bytes in a tar for each letter: x.png, then x.txt."""
    pairs = [{f"{name}.png": png(), f"{name}.txt": name} for name in letters]
    return {file: data for pair in pairs for file, data in pair.items()}


def report_of(path) -> Report:
    return open_pairs(DataConfig(path=str(path)))[2]


def stems(report: Report) -> dict[str, list[str]]:
    return {why: sorted(n.split(".")[0] for n in names) for why, names in report.skipped.items()}


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_every_reason_is_counted_and_named(kind, tmp_path):
    path = write(tmp_path, FILES) if kind == "folder" else write_tar(tmp_path / "a.tar", FILES)
    report = report_of(path)
    assert stems(report) == REASONS
    assert (report.used, report.found) == (1, 9)
    for why, names in REASONS.items():
        assert why in report.summary()
        assert all(name in report.summary() for name in names)


def test_rows_of_a_table_are_counted_and_named(tmp_path):
    rows = ['{"file_name": "a.png", "text": "one"}', '{"file_name": "b.png", "text": ""}', "{oops"]
    rows += ['{"file_name": "c.png"}', '{"file_name": "gone.png", "text": "gone"}']
    images = {f"{name}.png": png() for name in "abcd"}
    report = report_of(write(tmp_path, {**images, "metadata.jsonl": "\n".join(rows)}))
    assert report.skipped == {
        "metadata is not a JSON object": ["metadata.jsonl line 3"],
        "caption is empty": ["b.png"],
        "image without a caption": ["c.png", "d.png"],
        "caption without an image": ["gone.png"],
    }


@pytest.mark.parametrize("kind", ["folder", "tar", "table"])
def test_images_in_formats_that_are_not_read_are_named_once_with_their_format(kind, tmp_path):
    files = {"a.png": png(), "a.txt": "one", "b.heic": b"?", "b.txt": "two", "C.JXL": b"?"}
    if kind == "tar":
        report = report_of(write_tar(tmp_path / "t.tar", {**files, "a.heic": b"?"}))
        names = ["t.tar/b.heic", "t.tar/C.JXL", "t.tar/a.heic"]
    elif kind == "table":
        rows = "file_name,text\na.png,one\nb.heic,two\n"
        report = report_of(write(tmp_path, {**files, "a.heic": b"?", "metadata.csv": rows}))
        names = ["C.JXL", "a.heic", "b.heic"]
    else:
        report = report_of(write(tmp_path, {**files, "a.heic": b"?"}))
        names = ["C.JXL", "a.heic", "b.heic"]
    skipped = report.skipped["image format is not supported"]
    assert (report.used, report.found, sorted(skipped)) == (1, 4, sorted(names))


def test_a_folder_of_nothing_but_unread_formats_names_them(tmp_path):
    write(tmp_path, {"a.heic": b"?", "a.txt": "one"})
    with pytest.raises(DataError, match=r"1 × image format is not supported \(a\.heic\)"):
        report_of(tmp_path)


def test_what_is_next_to_tars_is_counted_and_named(tmp_path):
    write_tar(tmp_path / "0.tar", pairs_named("ab"))
    write(tmp_path, {**pairs_named("c"), "d.png": png(), "e.heic": b"?", "f.txt": "lost"})
    write(tmp_path, {"0_stats.json": '{"count": 2}', "0.parquet": "?"})  # of img2dataset
    report = report_of(tmp_path)
    names = ["c.png", "d.png", "e.heic", "f.txt"]
    assert report.skipped == {"next to tars, which take precedence": names}
    assert (report.used, report.found) == (2, 6)


def test_tars_next_to_a_table_are_counted_and_named(tmp_path):
    write_jsonl(tmp_path, {"x": Sample((1, 2, 3), ["x"])})
    write_tar(tmp_path / "0.tar", pairs_named("ab"))
    write_tar(tmp_path / "more" / "1.tar", pairs_named("c"))
    report = report_of(tmp_path)
    assert report.skipped == {"next to a table, which takes precedence": ["0.tar", "more/1.tar"]}
    assert (report.used, report.found) == (1, 3)


@pytest.mark.parametrize(("count", "words"), [(1, "1 webdataset tar"), (2, "2 webdataset tars")])
def test_the_report_counts_tars_in_right_english(count, words, tmp_path):
    for number in range(count):
        write_tar(tmp_path / f"{number}.tar", pairs_named("a"))
    assert report_of(tmp_path).kind == report_of(tmp_path / "*.tar").kind == words


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path, {"a.png": png(), "a.txt": "one", "b.txt": "two", "c.png": png()})
    os.symlink(tmp_path / "gone", tmp_path / "b.png")
    os.symlink(tmp_path / "gone", tmp_path / "c.txt")
    assert stems(report_of(tmp_path)) == {"file cannot be read": ["b", "c"]}


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_what_is_no_file_is_named_and_waits_for_nothing(kind, tmp_path):
    """Opening a pipe waits until somebody writes into it."""
    files = {"a.png": png(), "b.png": png(), "pipe.txt": "pipe"}
    files |= (
        {"metadata.jsonl": '{"file_name": "a.png", "text": "a"}\n'}
        if kind == "table"
        else {"a.txt": "one"}
    )
    write(tmp_path, files)
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "b.txt")
    if kind == "table":
        with (tmp_path / "metadata.jsonl").open("a") as table:
            table.write('{"file_name": "pipe.png", "text": "pipe"}\n')
    named = {"folder": ["b.png", "pipe.png"], "table": ["pipe.png"]}[kind]
    assert sorted(report_of(tmp_path).skipped["file cannot be read"]) == named


def test_tars_that_lead_nowhere_or_are_pipes_cost_nothing_but_themselves(tmp_path):
    write_tar(tmp_path / "0.tar", pairs_named("ab"))
    os.symlink(tmp_path / "gone", tmp_path / "1.tar")
    os.mkfifo(tmp_path / "2.tar")
    for path in (tmp_path, tmp_path / "*.tar"):
        report = report_of(path)
        assert report.used == 2
        assert report.skipped == {"file cannot be read": ["1.tar", "2.tar"]}
    out = prepare(str(tmp_path / "*.tar"), tmp_path / "set", PrepareConfig(duplicate_distance=None))
    assert dropped(out) == {"file cannot be read": 2} and len(rows(out)) == 2


def test_rows_of_a_table_that_are_damaged_cost_nothing_but_themselves(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"file_name": "a.png", "text": "one"}',
        '{"file_name": "b.png", "text": "é"}'.encode("latin1"),
        b'{"text": "no image"}',
        b'{"file_name": "%s.png", "text": "long"}' % (b"x" * 5000),
        b'{"file_name": "nul\\u0000.png", "text": "no name"}',
        '{"file_name": "c.png", "text": "é\u2028é"}'.encode(),
    ]
    files = {f"{name}.png": png() for name in "abc"}
    pairs, _, report = open_pairs(
        DataConfig(
            path=str(write(tmp_path, {**files, "metadata.jsonl": b"\n".join(lines)})),
            test_fraction=0,
        )
    )
    assert [pair.captions for pair in pairs] == [("one",), ("é\u2028é",)]
    assert report.skipped == {
        "metadata is not a JSON object": ["metadata.jsonl line 2"],
        "row without a file_name": ["metadata.jsonl line 3"],
        "image without a caption": ["b.png"],
        "caption without an image": ["x" * 5000 + ".png", "nul\0.png"],
    }


def test_a_tar_that_is_cut_off_keeps_what_is_whole_and_says_so(tmp_path):
    members = pairs_named("abc")
    whole = write_tar(tmp_path / "whole.tar", members).read_bytes()
    for cut in (4 * 1024 + 512 + 10, 4 * 1024 + 100):  # inside the data, inside the header of c.png
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        report = report_of(tmp_path / "cut.tar")
        assert report.used == 2
        assert any("cut.tar" in name for name in report.skipped["tar is corrupt after this point"])


BAD_TARS = {
    "empty": b"",
    "text": b"no tar at all" * 99,
    "packed": gzip.compress(b"\0" * 10240, mtime=0),
}


@pytest.mark.parametrize("bad", BAD_TARS.values(), ids=BAD_TARS.keys())
def test_one_bad_tar_costs_nothing_but_itself(bad, tmp_path):
    write(tmp_path, {"1.tar": bad})
    for number, keys in ((0, "ab"), (2, "cd")):
        write_tar(tmp_path / f"{number}.tar", pairs_named(keys))
    report = report_of(tmp_path)
    assert report.used == 4
    (name,) = report.skipped["not an uncompressed tar"]
    assert name.startswith("1.tar: ")


def test_a_damaged_header_in_a_tar_is_reported(tmp_path):
    members = pairs_named("ab")
    data = bytearray(write_tar(tmp_path / "a.tar", members).read_bytes())
    data[2048:2560] = b"\x7f" * 512
    (tmp_path / "a.tar").write_bytes(data)
    report = report_of(tmp_path)
    assert report.used == 1
    assert report.skipped == {"tar is corrupt after this point": ["a.tar at byte 2048"]}


def test_no_usable_pair_is_an_error_with_the_counts(tmp_path):
    write(tmp_path, {name: data for name, data in FILES.items() if not name.startswith("good")})
    with pytest.raises(DataError, match=r"found no usable pair.*using 0 of 8 items") as error:
        report_of(tmp_path)
    assert "2 × metadata is not a JSON object (broken.png, list.png)" in str(error.value)


def test_the_report_names_a_few_in_its_sentence_and_all_in_its_json(tmp_path):
    write(tmp_path, {"a.png": png(), "a.txt": "one"})
    write(tmp_path, {f"x{i}.txt": "lost" for i in range(7)})
    report = report_of(tmp_path)
    assert "7 × caption without an image (x0.txt, x1.txt, x2.txt, …)" in report.summary()
    assert "\n" not in report.summary()
    assert json.loads(json.dumps(report.to_dict())) == {
        "path": str(tmp_path),
        "kind": "images with caption files",
        "found": 8,
        "used": 1,
        "train": 1,
        "test": 0,
        "skipped": {"caption without an image": [f"x{i}.txt" for i in range(7)]},
    }
