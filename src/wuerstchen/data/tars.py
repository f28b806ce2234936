"""Webdataset tars as img2dataset writes them: KEY.jpg, KEY.txt and KEY.json next to each other.

Each tar is indexed once; an image is then a byte range that can be read in any order. `webdataset`
and `datasets` read in sequence or copy everything into a cache, and neither can name an image that
does not decode and continue.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import final

from wuerstchen.data.file_kinds import Kind, kind_of, left_out, other_kind
from wuerstchen.data.items import ByteRange, Item, Split, check_is_file, folder_split, parse_split
from wuerstchen.data.report import Reason, Report, escape_non_utf8
from wuerstchen.data.tar_members import Member, members

_Files = dict[Kind, ByteRange]
"""Files of one key."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}

_UNREAD: dict[str, Reason] = {
    "sparse": "sparse file in a tar",
    "other": "device in a tar",
    "untrue": "size in the tar is not true",
}


def read_tars(
    root: Path, tars: Sequence[PurePosixPath], report: Report, *, caption_per_line: bool = False
) -> list[Item]:
    """Items of all tars (relative to `root`), in the order of tars and members.

    The key is the member's path without its suffix; keys that several tars hold are prefixed with
    the tar's name. Of members with one key and kind the last is used, as when unpacking a tar; the
    others are reported.
    """
    shards = [(tar, read_tar(root, tar, report, caption_per_line=caption_per_line)) for tar in tars]
    counts = Counter(item.key for _, items in shards for item in items)
    for tar, items in shards:
        for item in items:
            if counts[item.key] > 1:
                item.key = escape_non_utf8(f"{tar.with_suffix('')}/{item.key}")
    return [item for _, items in shards for item in items]


def read_tar(
    root: Path, tar: PurePosixPath, report: Report, *, caption_per_line: bool = False
) -> list[Item]:
    """Items of one tar (relative to `root`); their keys are unique within this tar only.

    A tar that cannot be read gives no items and an entry in the report.
    """
    split = split_from_tar(tar)
    try:
        index = _Index(root / tar, str(tar), report).read()
    except OSError:
        report.skip("file cannot be read", str(tar))
        return []
    items = []
    for key, files in index.items():
        if "image" in files or "unsupported" not in files:
            item = Item(key, files.get("image"), split=split)
            text, metadata = files.get(".txt"), files.get(".json")
            item.add_files(text, metadata, caption_per_line=caption_per_line)
            items.append(item)
    return items


def split_from_tar(tar: PurePosixPath) -> Split | None:
    """The split that the tar's name starts with (`train-00000.tar`), or that its folder names."""
    word = re.match(r"[A-Za-z]*", tar.stem)
    return (parse_split(word[0]) if word else None) or folder_split(tar)


@final
class _Index:
    """Files of a tar by key. What cannot be read is reported, and costs no other member."""

    def __init__(self, path: Path, name: str, report: Report) -> None:
        self._path, self._name, self._report = path, name, report
        self._keys: defaultdict[str, _Files] = defaultdict(dict)
        self._ranges: dict[str, ByteRange] = {}
        self._links: list[Member] = []

    def read(self) -> dict[str, _Files]:
        """Index the tar; raises OSError if it is not a file or cannot be read."""
        check_is_file(self._path)
        with self._path.open("rb") as archive:
            start = archive.read(8)
            if not start:
                self._report.skip("not an uncompressed tar", f"{self._name}: empty file")
            for member in members(archive):
                if member.kind == "corrupt":
                    self._report_corrupt(member, start)
                elif not self._is_left_out(member):
                    self._add(member)
        for link in self._links:  # to members that follow
            if self._resolve(link) is None:
                shown = f"{self._name}/{link.name}"
                self._report.skip("link in a tar that leads to no file in it", shown)
        return {key: files for key, files in self._keys.items() if files}

    def _report_corrupt(self, member: Member, start: bytes) -> None:
        if member.offset:
            where = f"{self._name} at byte {member.offset}"
            self._report.skip("tar is corrupt after this point", where)
            return
        found = [kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)]
        what = f"compressed with {found[0]}" if found else "no header at its start"
        self._report.skip("not an uncompressed tar", f"{self._name}: {what}")

    def _is_left_out(self, member: Member) -> bool:
        file = PurePosixPath(member.name)
        label = next(filter(None, map(left_out, file.parts)), None)
        if label is None and kind_of(file) is None and member.kind in ("file", "link", "other"):
            label = other_kind(file)
            if member.kind == "file":  # links may lead to files without a suffix
                self._ranges[posixpath.normpath(member.name)] = self._range(member)
        if label is not None:
            self._report.leave_out(label)
        return label is not None

    def _add(self, member: Member) -> None:
        if member.kind == "file":
            self._put(member.name, self._range(member))
        elif member.kind != "link":
            self._report.skip(_UNREAD[member.kind], f"{self._name}/{member.name}")
        elif self._resolve(member) is None:
            self._links.append(member)

    def _range(self, member: Member) -> ByteRange:
        return ByteRange(self._path, member.offset, member.size)

    def _resolve(self, link: Member) -> ByteRange | None:
        """Use the file that a link leads to, if it is known, under the link's name."""
        found = self._ranges.get(link.target)
        if found is not None:
            self._put(link.name, found)
        return found

    def _put(self, name: str, file: ByteRange) -> None:
        self._ranges[posixpath.normpath(name)] = file
        path = PurePosixPath(name)
        kind, files = kind_of(path), self._keys[str(path.with_suffix(""))]
        assert kind is not None
        if kind == "unsupported":
            self._report.skip("image format is not supported", f"{self._name}/{name}")
        elif kind in files:
            self._report.skip("replaced by a later file of the same name", f"{self._name}/{name}")
        files[kind] = file
