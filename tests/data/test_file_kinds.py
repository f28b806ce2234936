"""Every file of a folder or a tar is used, named as skipped, or counted as no data."""

import io
from pathlib import Path

import pytest
from made_data import png, write, write_tar
from PIL import Image

from wuerstchen.config import DataConfig
from wuerstchen.data import Report, open_pairs
from wuerstchen.data.file_kinds import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES
from wuerstchen.errors import DataError

GOOD: dict[str, bytes | str] = {"good.png": png(), "good.txt": "a good one"}

RAW = "3fr arw bay cr2 cr3 crw dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 srw x3f"
OTHERS = "heic heif hif jxl psd psb xcf svg eps ai exr hdr dds qoi"


def opened(path: Path, **settings: object) -> tuple[set[str], Report]:
    config = DataConfig.model_validate({"path": str(path), "test_fraction": 0, **settings})
    pairs, _, report = open_pairs(config)
    return {pair.key.split(".")[0] for pair in pairs}, report


@pytest.mark.parametrize("kind", ["folder", "table", "tar"])
def test_images_of_every_suffix_that_is_not_read_are_named(kind: str, tmp_path: Path) -> None:
    names = [f"x.{suffix.upper()}" for suffix in f"{RAW} {OTHERS}".split()]
    files = {**GOOD, **dict.fromkeys(names, b"x")}
    if kind == "table":
        files["metadata.csv"] = "file_name,text\ngood.png,one\n"
    path = write_tar(tmp_path / "t.tar", files) if kind == "tar" else write(tmp_path, files)
    found, report = opened(path)
    assert found == {"good"}
    skipped = report.skipped["image format is not supported"]
    assert sorted(name.removeprefix("t.tar/") for name in skipped) == sorted(names)


def test_images_of_every_suffix_that_is_read_are_read(tmp_path: Path) -> None:
    image, files = Image.new("RGB", (64, 64), (200, 10, 30)), dict(GOOD)
    kinds = {".jpe": "JPEG", ".mpo": "MPO", ".apng": "PNG", ".dib": "DIB", ".pgm": "PPM"}
    kinds |= {".ppm": "PPM", ".ico": "ICO", ".tga": "TGA", ".jp2": "JPEG2000"}
    for suffix, kind in kinds.items():
        if suffix in IMAGE_SUFFIXES:
            buffer = io.BytesIO()
            image.save(buffer, kind)
            files |= {f"{suffix[1:]}{suffix.upper()}": buffer.getvalue(), f"{suffix[1:]}.txt": "x"}
    found, report = opened(write(tmp_path, files))
    assert found == {"good", *(suffix[1:] for suffix in kinds if suffix in IMAGE_SUFFIXES)}
    assert not report.skipped and not IMAGE_SUFFIXES & UNSUPPORTED_SUFFIXES


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\0\0\0\x18ftypheic", "image format is not supported"),  # phones name it .jpg
        (b"\xff\x0a", "image format is not supported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image format is not supported"),
        (b"<html>", "image does not decode"),
    ],
)
def test_a_format_is_named_whatever_the_suffix_says(
    start: bytes, reason: str, tmp_path: Path
) -> None:
    write(tmp_path, {**GOOD, "x.jpg": start + b"x" * 99, "x.txt": "x"})
    assert opened(tmp_path)[1].skipped == {reason: ["x.jpg"]}


SYSTEM = [
    *("@eaDir/a.png/SYNOFILE_THUMB_M.jpg", "sub/@eaDir/b.png", "#recycle/c.png"),
    *("@Recycle/d.png", "lost+found/e.png", ".thumbnails/f.png", "__MACOSX/._g.png"),
    *(".ipynb_checkpoints/h-checkpoint.png", "Thumbs.db", "sub/Thumbs.db", ".DS_Store"),
    *("desktop.ini", "$RECYCLE.BIN/i.png", "System Volume Information/j.png"),
]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_what_a_system_keeps_is_left_out_and_counted_by_name(kind: str, tmp_path: Path) -> None:
    files = {**GOOD, **dict.fromkeys(SYSTEM, png()), ".hidden.png": png(), "notes.md": "x"}
    path = write_tar(tmp_path / "t.tar", files) if kind == "tar" else write(tmp_path, files)
    found, report = opened(path, caption="a photo of sks dog")
    assert (found, report.found, report.skipped) == ({"good"}, 1, {})
    names = {"@eaDir": 2, "Thumbs.db": 2, "hidden": 1, "*.md": 1} | dict.fromkeys(
        ("#recycle", "@Recycle", "lost+found", ".thumbnails", "__MACOSX", ".ipynb_checkpoints"), 1
    )
    names |= dict.fromkeys((".DS_Store", "desktop.ini", "$RECYCLE.BIN"), 1)
    assert report.left_out == {**names, "System Volume Information": 1}
    assert "no data: 2 × @eaDir" in report.summary()
    assert report.to_dict()["left_out"] == report.left_out


@pytest.mark.parametrize("name", ["more.tar.gz", "more.tgz", "more.zip", "more.tar.zst"])
def test_archives_that_are_not_read_are_named(name: str, tmp_path: Path) -> None:
    write(tmp_path / "folder", {**GOOD, name: "x"})
    write_tar(tmp_path / "tars" / "0.tar", GOOD)
    write(tmp_path / "tars", {name: "x"})
    for path in (tmp_path / "folder", tmp_path / "tars"):
        assert opened(path)[1].skipped == {"not an uncompressed tar": [name]}
    write(tmp_path / "alone", {name: "x"})
    with pytest.raises(DataError, match=rf"found 1 file, but none of these \({name}\)"):
        opened(tmp_path / "alone")


def test_paths_that_no_system_can_hold_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("A" * 5000, "~nobody-of-this-name/x", str(tmp_path / ("B" * 300))):
        with pytest.raises(DataError, match="not found"):
            opened(Path(path))
    monkeypatch.setattr("wuerstchen.data.sources._MOST_PATTERNS", 1000)
    for braces in ("{0..999}{0..999}.tar", "{0..99999999999999}.tar"):
        with pytest.raises(DataError, match="at most 1,000 names"):
            opened(tmp_path / braces)
