"""A caption file is one caption, however its text is broken into lines."""

import json
from pathlib import Path

import pytest
from made_data import png, write, write_tar
from made_sources import as_bytes, drawing, rows

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import Report, open_pairs
from wuerstchen.errors import DataError
from wuerstchen.prepare.prepare import prepare

WORDS = "Red summer dress\nSize 38\n\nonly $15, free shipping"
LINES = ("Red summer dress", "Size 38", "only $15, free shipping")
NO_LINE_BREAKS = "a\u2028b\u2029c\x0bd\x0ce\x1cf\x1dg\x1eh\x85i"

Found = dict[str, tuple[str, ...]]


def opened(path: Path, **settings: object) -> tuple[Found, Report]:
    config = DataConfig.model_validate({"path": str(path), "test_fraction": 0, **settings})
    pairs, _, report = open_pairs(config)
    return {pair.key.split(".")[0]: pair.captions for pair in pairs}, report


def packed(kind: str, root: Path, files: dict[str, bytes | str]) -> Path:
    return write(root / "f", files) if kind == "folder" else write_tar(root / "t.tar", files)


TEXTS = {  # file, whole, by line
    "line breaks": (WORDS, (WORDS,), LINES),
    "those of Windows": (WORDS.replace("\n", "\r\n"), (WORDS,), LINES),
    "those of old Macs": (WORDS.replace("\n", "\r"), (WORDS,), LINES),
    "a mark": (b"\xef\xbb\xbf" + WORDS.encode(), (WORDS,), LINES),
    "UTF-16 with its mark": (WORDS.encode("utf-16"), (WORDS,), LINES),
    "a last line break": (f"\n {WORDS}\n\n", (WORDS,), LINES),
    "what ends no line": (NO_LINE_BREAKS, (NO_LINE_BREAKS,), (NO_LINE_BREAKS,)),
    "one line": ("a cat\n", ("a cat",), ("a cat",)),
}


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_caption_is_whole_unless_lines_are_asked_for(
    name: str, kind: str, tmp_path: Path
) -> None:
    text, whole, by_line = TEXTS[name]
    path = packed(kind, tmp_path, {"a.png": png(), "a.txt": text})
    assert opened(path)[0] == {"a": whole}
    assert opened(path, caption_per_line=True)[0] == {"a": by_line}


BOTH = {  # text, fields of the JSON, whole, by line
    "the same": (WORDS, {"caption": WORDS}, (WORDS,), LINES),
    "the same of Windows": (WORDS.replace("\n", "\r\n"), {"caption": WORDS}, (WORDS,), LINES),
    "joined in JSON": (WORDS, {"caption": " ".join(LINES)}, (" ".join(LINES),), LINES),
    "joined in text": (" ".join(LINES), {"caption": WORDS}, (WORDS,), (" ".join(LINES),)),
    "lines of JSON": ("one\ntwo", {"captions": ["one", "two"]}, ("one", "two"), ("one", "two")),
    "another": ("one\ntwo", {"text": "three"}, ("one\ntwo", "three"), ("one", "two", "three")),
    "the first line": ("one\ntwo", {"text": "one"}, ("one\ntwo", "one"), ("one", "two")),
}


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("name", BOTH)
def test_text_and_json_of_the_same_words_are_one_caption(
    name: str, kind: str, tmp_path: Path
) -> None:
    text, fields, whole, by_line = BOTH[name]
    path = packed(kind, tmp_path, {"a.png": png(), "a.txt": text, "a.json": json.dumps(fields)})
    assert opened(path)[0] == {"a": whole}
    assert opened(path, caption_per_line=True)[0] == {"a": by_line}


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        (1984, ("1984",)),
        (3.5, ("3.5",)),
        (["one", 2, None], ("one", "2")),
        ("[1984]", ("[1984]",)),
        ('["one", "two"]', ("one", "two")),
        (float("nan"), None),
        (None, None),
        (True, "caption is neither text nor a number"),
        ({"en": "one"}, "caption is neither text nor a number"),
    ],
)
def test_fields_of_any_kind_are_captions_or_named(
    value: object, captions: tuple[str, ...] | str | None, tmp_path: Path
) -> None:
    write(tmp_path, {"a.png": png(), "z.png": png(), "z.txt": "last"})
    write(tmp_path, {"a.json": json.dumps({"caption": value})})
    found, report = opened(tmp_path)
    if isinstance(captions, tuple):
        assert found["a"] == captions
    else:
        assert report.skipped == {captions or "caption is empty": ["a.png"]}


def test_suffixes_in_capitals_are_read_in_folders_as_in_tars(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"A.PNG": png(), "A.TXT": "a", "b.Png": png(), "b.Txt": "b"}
    files |= {
        "C.PNG": png(),
        "C.JSON": '{"caption": "c"}',
        "D.TXT": "lost",
        "E.JSON": '{"caption": "e"}',
    }
    for kind in ("folder", "tar"):
        found, report = opened(packed(kind, tmp_path, files))
        assert found == {"A": ("a",), "b": ("b",), "C": ("c",)}
        names = {name.split(".")[0] for name in report.skipped["caption without an image"]}
        assert names == {"D", "E"}
    write_tar(tmp_path / "tars" / "X.TAR", files)
    assert opened(tmp_path / "tars")[0] == opened(tmp_path / "tars" / "X.TAR")[0] == found


def test_of_two_files_that_differ_in_capitals_one_is_read_and_the_other_named(
    tmp_path: Path,
) -> None:
    files: dict[str, bytes | str] = {"a.png": png(), "a.TXT": "capital", "a.txt": "small"}
    found, report = opened(write(tmp_path, files))
    assert found == {"a": ("small",)}
    assert report.skipped == {"next to a file of the same name that is read": ["a.TXT"]}


def test_a_prepared_set_keeps_captions_whole_or_by_line(tmp_path: Path) -> None:
    """Also its shards, when they are read as tars."""
    source = write(tmp_path / "in", {"a.png": as_bytes(drawing(1)), "a.txt": WORDS})
    for per_line, captions in ((False, [WORDS]), (True, list(LINES))):
        config = PrepareConfig(size=128, test_fraction=0, caption_per_line=per_line)
        out = prepare(str(source), tmp_path / f"{per_line}", config)
        assert rows(out)[0]["captions"] == captions
        assert list(opened(out / "shards")[0].values()) == [tuple(captions)]
    with pytest.raises(DataError, match=r"expected data\.caption_per_line=False"):
        opened(tmp_path / "False", caption_per_line=True)
    assert list(opened(tmp_path / "True")[0].values()) == [LINES]


def test_a_set_from_before_the_setting_had_a_caption_per_line(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.png": as_bytes(drawing(1)), "a.txt": "a"})
    out = prepare(str(source), tmp_path / "out", PrepareConfig(size=128, test_fraction=0))
    info = json.loads((out / "prepared.json").read_text())
    del info["settings"]["caption_per_line"]
    (out / "prepared.json").write_text(json.dumps(info))
    assert opened(out)[0] == opened(out, caption_per_line=True)[0] == {"a": ("a",)}
    with pytest.raises(DataError, match="expected caption_per_line=True, as in the earlier run"):
        prepare(str(source), out, PrepareConfig(size=128, test_fraction=0))
