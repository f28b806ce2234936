"""Tables as other tools write them; damage in a row costs only the row."""

import json
from pathlib import Path

import pytest
from made_data import png, write

from wuerstchen.config import DataConfig
from wuerstchen.data import Report, open_pairs

IMAGES: dict[str, bytes | str] = {f"images/{n}.jpg": png() for n in (0, 1)}
BOTH = {"images/0.jpg": ("caption 0",), "images/1.jpg": ("caption 1",)}


def opened(path: Path) -> tuple[dict[str, tuple[str, ...]], Report]:
    pairs, _, report = open_pairs(DataConfig(path=str(path), test_fraction=0))
    return {pair.key: pair.captions for pair in pairs}, report


def csv_of(header: str, row: str) -> str:
    return header + "".join(row.replace("#", str(n)) for n in (0, 1))


def jsonl_of(name: str, column: str = "file_name", caption: str = "text") -> str:
    fields = [{column: name.replace("#", str(n)), caption: f"caption {n}"} for n in (0, 1)]
    return "".join(json.dumps(each) + "\n" for each in fields)


PLAIN = csv_of("file_name,text\n", "images/#.jpg,caption #\n")
TABLES: dict[str, tuple[str, bytes | str]] = {
    "backslashes": ("metadata.jsonl", jsonl_of("images\\#.jpg")),
    "backslashes and dots": (
        "metadata.csv",
        csv_of("file_name,text\n", ".\\images\\#.jpg,caption #\n"),
    ),
    "images beside the table": ("meta/metadata.jsonl", jsonl_of("../images/#.jpg")),
    "images beside, of Windows": ("meta/metadata.jsonl", jsonl_of("..\\images\\#.jpg")),
    "paths of the whole data": ("meta/metadata.jsonl", jsonl_of("images/#.jpg")),
    "absolute paths": ("metadata.jsonl", jsonl_of("ROOT/images/#.jpg")),
    "absolute paths with dots": ("meta/metadata.jsonl", jsonl_of("ROOT/meta/../images/#.jpg")),
    "blanks after commas": (
        "metadata.csv",
        csv_of("file_name, text\n", "images/#.jpg, caption #\n"),
    ),
    "blanks before commas": (
        "metadata.csv",
        csv_of("file_name ,text \n", "images/#.jpg ,caption # \n"),
    ),
    "blanks before quotes": (
        "metadata.csv",
        csv_of("file_name, text\n", 'images/#.jpg, "caption #"\n'),
    ),
    "semicolons": ("metadata.csv", csv_of("file_name;text\n", "images/#.jpg;caption #\n")),
    "semicolons named": (
        "metadata.csv",
        csv_of("sep=;\nfile_name;text\n", "images/#.jpg;caption #\n"),
    ),
    "tabs": ("metadata.csv", csv_of("file_name\ttext\n", "images/#.jpg\tcaption #\n")),
    "a mark": ("metadata.csv", b"\xef\xbb\xbf" + PLAIN.encode()),
    "a mark in JSON": ("metadata.jsonl", b"\xef\xbb\xbf" + jsonl_of("images/#.jpg").encode()),
    "UTF-16": ("metadata.csv", PLAIN.encode("utf-16")),
    "line ends of Windows": ("metadata.csv", PLAIN.replace("\n", "\r\n")),
    "blank lines": ("metadata.csv", "\n" + PLAIN.replace("\n", "\n\n")),
    "commas at the end": ("metadata.csv", csv_of("file_name,text\n", "images/#.jpg,caption #,,\n")),
    "a name in capitals": ("METADATA.CSV", PLAIN),
    "columns in capitals": ("metadata.csv", csv_of("File Name,Text\n", "images/#.jpg,caption #\n")),
    "image and prompt": ("metadata.csv", csv_of("image,prompt\n", "images/#.jpg,caption #\n")),
    "image_path and caption": ("metadata.jsonl", jsonl_of("images/#.jpg", "image_path", "caption")),
    "an index of pandas": (
        "metadata.csv",
        csv_of(",file_name,text\n", "#,images/#.jpg,caption #\n"),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_plain_is_read(name: str, tmp_path: Path) -> None:
    file, content = TABLES[name]
    if isinstance(content, str):
        content = content.replace("ROOT", str(tmp_path))
    found, report = opened(write(tmp_path, {**IMAGES, file: content}))
    assert found == BOTH
    assert report.skipped == {}


def test_absolute_paths_are_found_through_a_link_and_not_outside(tmp_path: Path) -> None:
    write(
        tmp_path / "real", {**IMAGES, "metadata.jsonl": jsonl_of(f"{tmp_path}/real/images/#.jpg")}
    )
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert opened(tmp_path / "link")[0] == BOTH
    inner = write(tmp_path / "real" / "in", {"x.jpg": png(), "x2.jpg": png()})
    rows = jsonl_of(f"{tmp_path}/real/images/#.jpg") + '{"file_name": "x.jpg", "text": "x"}'
    found, report = opened(write(inner, {"metadata.jsonl": rows}))
    assert found == {"x.jpg": ("x",)}
    assert len(report.skipped["caption without an image"]) == 2


ROW_0 = "images/0.jpg,caption 0\n"
DAMAGE = {
    "a very long field": (
        'images/1.jpg,"' + "x" * 140_000 + '"\n',
        "row with an open quote or a very long field",
    ),
    "an open quote": (
        'images/1.jpg,"never closed\n',
        "row with an open quote or a very long field",
    ),
    "a comma too many": ("images/1.jpg,a cat, asleep\n", "row with more fields than columns"),
    "Latin-1": ("images/1.jpg,caf\xe9\n", "caption is not UTF-8 text"),
    "no name": (",caption 1\n", "row without a file_name"),
    "no such image": ("images/9.jpg,caption 9\n", "caption without an image"),
    "nothing but commas": ("," * 200_000 + "\n", "row without a file_name"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("last", [False, True])
def test_damage_in_a_row_costs_only_the_row(name: str, last: bool, tmp_path: Path) -> None:
    row, reason = DAMAGE[name]
    if last and name == "an open quote":
        return  # the end of the file closes it
    table = "file_name,text\n" + (ROW_0 + row if last else row + ROW_0)
    found, report = opened(write(tmp_path, {**IMAGES, "metadata.csv": table.encode("latin-1")}))
    assert found == {"images/0.jpg": ("caption 0",)}
    assert len(report.skipped[reason]) == 1


def test_captions_of_several_lines_and_quotes_stay_as_they_are(tmp_path: Path) -> None:
    table = 'file_name,text\nimages/0.jpg,"one\ntwo, ""three"""\nimages/1.jpg,5" screen\n'
    found, report = opened(write(tmp_path, {**IMAGES, "metadata.csv": table}))
    assert found == {"images/0.jpg": ('one\ntwo, "three"',), "images/1.jpg": ('5" screen',)}
    assert not report.skipped


def test_a_table_that_cannot_be_used_costs_no_other(tmp_path: Path) -> None:
    files = {
        **IMAGES,
        "metadata.jsonl": jsonl_of("images/#.jpg"),
        "a/metadata.csv": "url,text\nx,y\n",
    }
    write(tmp_path, {**files, "b/metadata.csv": b"\0\xff\xfe" * 99})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metadata.csv").symlink_to(tmp_path / "gone")
    found, report = opened(tmp_path)
    assert found == BOTH
    assert "a/metadata.csv has url, text" in report.skipped["table without a column file_name"]
    assert report.skipped["file cannot be read"] == ["c/metadata.csv"]


@pytest.mark.parametrize(
    "name", ["metadata.parquet", "metadata.tsv", "captions.xlsx", "metadata.json", "train.csv"]
)
def test_tables_of_other_kinds_are_named(name: str, tmp_path: Path) -> None:
    for root, file in (("folder", "images/0.txt"), ("table", "metadata.jsonl")):
        content = jsonl_of("images/#.jpg") if root == "table" else "caption 0"
        path = write(tmp_path / root, {**IMAGES, file: content, name: "[]"})
        assert opened(path)[1].skipped["table of a kind that is not read"] == [name]
