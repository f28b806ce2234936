"""Tars whose headers lie: every size is compared with the file, and costs only its own member."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from made_data import png, write_tar
from made_sources import as_bytes, drawing, dropped, rows

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import Report, open_pairs
from wuerstchen.data.report import Reason
from wuerstchen.data.tar_members import members
from wuerstchen.prepare.prepare import prepare

BLOCK = 512


def header(name: str, size: bytes, kind: bytes = b"0", target: str = "") -> bytes:
    """A header of POSIX.1-2017 with the field `size` as it is given."""
    block = bytearray(BLOCK)
    block[:100] = name.encode().ljust(100, b"\0")
    block[124:136] = size.ljust(12, b"\0")
    block[156:157], block[157:257] = kind, target.encode().ljust(100, b"\0")
    block[257:265] = b"ustar\00000"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def member(name: str, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, f"{len(data):011o}".encode(), kind) + padded(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(**records: str) -> bytes:
    """A header that extends the next one (POSIX.1-2017, pax)."""
    data = b""
    for key, value in records.items():
        text = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(text) + 2
        length += length >= 100
        data += str(length).encode() + text
    return member("pax", data, kind=b"x")


def base_256(number: int) -> bytes:
    """GNU tar's form of numbers that octal digits cannot hold."""
    return (b"\xff" if number < 0 else b"\x80") + number.to_bytes(11, "big", signed=True)


def with_map(block: bytes) -> bytes:
    """A header that says of itself, and of each map before it, that a further map follows."""
    marked = bytearray(block)
    marked[482] = marked[504] = 1
    marked[148:156] = b" " * 8
    marked[148:156] = f"{sum(marked):06o}\0 ".encode()
    return bytes(marked)


BEFORE = member("a.png", png()) + member("a.txt", b"first")
AFTER = member("z.png", png()) + member("z.txt", b"last")
IMAGE = png((1, 2, 3))
UNTRUE: Reason = "size in the tar is not true"
SPARSE: Reason = "sparse file in a tar"
LOST: Reason = "link in a tar that leads to no file in it"

LIES: dict[str, tuple[bytes, Reason | None]] = {
    "a negative pax size": (pax(size="-5") + member("x.png", IMAGE), UNTRUE),
    "a pax size that leads back": (pax(size="-5000") + member("x.png", IMAGE), UNTRUE),
    "a pax size of terabytes": (pax(size=str(10**14)) + member("x.png", IMAGE), UNTRUE),
    "a pax size in words": (pax(size="many") + member("x.png", IMAGE), UNTRUE),
    "a pax size of a thousand digits": (pax(size="9" * 900) + member("x.png", IMAGE), UNTRUE),
    "pax records that do not add up": (
        member("pax", b"999 path=x\n", kind=b"x") + member("x.png", IMAGE),
        UNTRUE,
    ),
    "a size of terabytes": (header("x.png", base_256(10**14)) + padded(IMAGE), UNTRUE),
    "a negative size": (header("x.png", base_256(-(10**9))) + padded(IMAGE), UNTRUE),
    "a size of minus one in octal": (header("x.png", b"-0000000001") + padded(IMAGE), UNTRUE),
    "a size in words": (header("x.png", b"large") + padded(IMAGE), UNTRUE),
    "a long name of terabytes": (
        header("x", base_256(2**45), kind=b"L") + member("x.png", IMAGE),
        None,
    ),
    "attributes of terabytes": (
        header("x", base_256(2**45), kind=b"x") + member("x.png", IMAGE),
        None,
    ),
    "a sparse size of terabytes": (
        pax(GNU__sparse__realsize="99999999999999") + member("x.png", IMAGE),
        SPARSE,
    ),
    "a sparse map": (
        pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name="x.png")
        + member("GNUSparseFile.0/x.png", b"no number" * 99),
        SPARSE,
    ),
    "a sparse file of GNU's old format": (member("x.png", IMAGE, kind=b"S"), SPARSE),
    "a link to nothing": (
        header("x.png", b"0", b"1", "gone.png"),
        LOST,
    ),
    "links in a circle": (
        header("x.png", b"0", b"2", "y.png") + header("y.png", b"0", b"2", "x.png"),
        LOST,
    ),
    "a link to a file of the machine": (
        header("x.png", b"0", b"2", "/etc/passwd"),
        LOST,
    ),
    "a device": (header("x.png", b"0", b"3"), "device in a tar"),
    "a pipe with a size": (header("x.png", b"00000077777", b"6"), "device in a tar"),
}


def opened(path: Path) -> tuple[dict[str, tuple[str, ...]], Report]:
    pairs, _, report = open_pairs(DataConfig(path=str(path), test_fraction=0))
    return {pair.key: pair.captions for pair in pairs}, report


@pytest.mark.parametrize("lie", LIES)
def test_a_member_that_lies_costs_only_itself(lie: str, tmp_path: Path) -> None:
    data, reason = LIES[lie]
    path = tmp_path / "t.tar"
    path.write_bytes(BEFORE + data + AFTER + bytes(2 * BLOCK))
    found, report = opened(path)
    assert found == {"a": ("first",), "z": ("last",)}
    assert reason is None or any("x" in name for name in report.skipped[reason])


def test_a_size_beyond_the_end_without_another_member_is_a_tar_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(BEFORE + header("x.png", base_256(10**14)) + padded(IMAGE))
    found, report = opened(path)
    assert set(found) == {"a"}
    assert report.skipped == {"tar is corrupt after this point": [f"t.tar at byte {len(BEFORE)}"]}


def test_an_image_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    """As a member, and as a file with a hole that takes no room on the disk."""
    size = 3 * 2**30
    with (tmp_path / "t.tar").open("wb") as tar:
        tar.write(BEFORE + header("x.png", base_256(size)))
        tar.seek(size, io.SEEK_CUR)
        tar.write(member("x.txt", b"holes") + AFTER)
    found, report = opened(tmp_path / "t.tar")
    assert set(found) == {"a", "z"}
    assert report.skipped == {"file over the size limit": ["x"]}
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("x.png", "y.txt"):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    for name, data in {"x.txt": b"x", "y.png": png(), "z.png": png(), "z.txt": b"last"}.items():
        (folder / name).write_bytes(data)
    found, report = opened(folder)
    assert found == {"z.png": ("last",)}
    assert sorted(report.skipped["file over the size limit"]) == ["x.png", "y.png"]


def test_members_of_every_format_of_the_tools_are_read(tmp_path: Path) -> None:
    """tarfile writes them: long names, umlauts, hard and symbolic links."""
    long = "f" * 60 + "/" + "ö" * 90
    for name, kind in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        with tarfile.open(tmp_path / f"{name}.tar", "w", format=kind) as tar:
            for file, data in ((f"{long}.png", png()), (f"{long}.txt", b"long"), ("blob", png())):
                info = tarfile.TarInfo(file)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for file, link, to in (
                ("hard.png", tarfile.LNKTYPE, f"{long}.png"),
                ("hard.txt", tarfile.LNKTYPE, f"{long}.txt"),
                ("d/soft.png", tarfile.SYMTYPE, "../blob"),
                ("d/soft.txt", tarfile.SYMTYPE, "../later.txt"),
            ):
                info = tarfile.TarInfo(file)
                info.type, info.linkname = link, to
                tar.addfile(info)
            info = tarfile.TarInfo("later.txt")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"later"))
        found, report = opened(tmp_path / f"{name}.tar")
        assert found == {long: ("long",), "hard": ("long",), "d/soft": ("later",)}
        assert report.skipped == {"caption without an image": ["later"]}


def test_tars_that_were_joined_are_read_to_their_end(tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / f"{n}.tar", {f"{n}.png": png(), f"{n}.txt": n}) for n in "ab"]
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert opened(joined)[0] == {"a": ("a",), "b": ("b",)}


def test_what_gnu_tar_writes_is_read(tmp_path: Path) -> None:
    """With holes, links and the old format: an oracle that is not Python's."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
        (tmp_path / name).with_suffix(".txt").write_text(name)
    (tmp_path / "c.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "c.txt").symlink_to("b.txt")
    names = ["a.png", "a.txt", "b.png", "b.txt", "c.png", "c.txt"]
    for form in ("v7", "oldgnu", "gnu", "ustar", "posix"):
        tar = tmp_path / f"{form}.tar"
        command = ["tar", f"--format={form}", "-C", str(tmp_path), "-cf", str(tar), *names]
        subprocess.run(command, check=True)
        expected = {"a": ("a.png",), "b": ("b.png",), "c": ("b.png",)}
        assert opened(tar)[0] == expected, form


def test_a_preparation_of_a_lying_tar_is_finished(tmp_path: Path) -> None:
    sound = member("a.png", as_bytes(drawing(1))) + member("a.txt", b"a")
    lies = b"".join(data for data, reason in LIES.values() if reason)
    after = member("b.png", as_bytes(drawing(2))) + member("b.txt", b"b")
    (tmp_path / "t.tar").write_bytes(sound + lies + after)
    out = prepare(str(tmp_path / "t.tar"), tmp_path / "out", PrepareConfig(size=128))
    assert {str(row["key"]) for row in rows(out)} == {"a", "b"}
    assert dropped(out)[UNTRUE] == sum(reason == UNTRUE for _, reason in LIES.values())


@pytest.mark.parametrize(
    "lies",
    [
        header("x.png", base_256(10**14)),
        header("x.png", base_256(10**14)) + bytes(BLOCK),
        member("x.txt", b"") + bytes(BLOCK),
        with_map(header("x.png", base_256(10**14), b"S")),
    ],
    ids=["sizes", "sizes and padding", "padding", "maps of sparse files"],
)
def test_the_bytes_read_grow_linearly_with_a_tar_that_lies(
    lies: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count, read = tmp_path / "t.tar", 1000, 0
    path.write_bytes(lies * count + AFTER + bytes(2 * BLOCK))
    pread = os.pread

    def counted(number: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = pread(number, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    with path.open("rb") as file:
        found = list(members(file))
    assert len(found) == count + 2 and [each.name for each in found[-2:]] == ["z.png", "z.txt"]
    assert read <= 5 * path.stat().st_size
