"""Webdataset tars as img2dataset writes them: KEY.jpg, KEY.txt and KEY.json next to each other.

Each tar is indexed once; an image is then a byte range that can be read in any order. Python's
own tarfile does this: `webdataset` and `datasets` read in sequence or copy everything into a
cache, and neither can name an image that does not decode and continue.
"""

import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.images import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES
from wuerstchen.data.items import ByteRange, Item, Split, check_is_file, folder_split, parse_split
from wuerstchen.data.report import Report, escape_non_utf8

Members = dict[str, ByteRange]
"""Files of one key by kind: "image", "unsupported", ".txt", ".json"."""


def read_tars(root: Path, tars: Sequence[PurePosixPath], report: Report) -> list[Item]:
    """Items of all tars (relative to `root`), in the order of tars and members.

    The key is the member's path without its suffix; keys that several tars hold are prefixed with
    the tar's name. Of members with one key and kind the last is used, as when unpacking a tar; the
    others are reported.
    """
    shards = [(tar, read_tar(root, tar, report)) for tar in tars]
    counts = Counter(item.key for _, items in shards for item in items)
    for tar, items in shards:
        for item in items:
            if counts[item.key] > 1:
                item.key = escape_non_utf8(f"{tar.with_suffix('')}/{item.key}")
    return [item for _, items in shards for item in items]


def read_tar(root: Path, tar: PurePosixPath, report: Report) -> list[Item]:
    """Items of one tar (relative to `root`); their keys are unique within this tar only.

    A tar that cannot be read gives no items and an entry in the report.
    """
    split = split_from_tar(tar)
    try:
        index = _index(root / tar, str(tar), report)
        return [
            _read_item(key, members, split)
            for key, members in index.items()
            if "image" in members or "unsupported" not in members
        ]
    except OSError:
        report.skip("file cannot be read", str(tar))
        return []


def split_from_tar(tar: PurePosixPath) -> Split | None:
    """The split that the tar's name starts with (`train-00000.tar`), or that its folder names."""
    word = re.match(r"[A-Za-z]*", tar.stem)
    return (parse_split(word[0]) if word else None) or folder_split(tar)


def _index(path: Path, name: str, report: Report) -> dict[str, Members]:
    """Members of a tar by key. Whatever follows corrupt data is lost and reported; an unreadable
    tar is reported as a whole, so that one of thousands does not fail the others."""
    index: defaultdict[str, Members] = defaultdict(dict)
    check_is_file(path)
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                file = PurePosixPath(member.name)
                kind = _kind_of(file)
                if not member.isreg() or file.name.startswith(".") or kind is None:
                    continue
                members = index[str(file.with_suffix(""))]
                shown = f"{name}/{member.name}"
                if kind == "unsupported":
                    report.skip("image format is not supported", shown)
                elif kind in members:
                    report.skip("replaced by a later file of the same name", shown)
                members[kind] = ByteRange(path, member.offset_data, member.size)
            end = archive.offset
    except tarfile.TarError as error:
        if not index:
            report.skip("not an uncompressed tar", f"{name}: {error}")
            return index
        report.skip("tar is corrupt after this point", f"{name} after {next(reversed(index))}")
        return index
    # An intact tar ends with a block of zeros, or at the end of the file.
    if any(ByteRange(path, end, tarfile.BLOCKSIZE).read()):
        report.skip("tar is corrupt after this point", f"{name} at byte {end}")
    return index


def _kind_of(file: PurePosixPath) -> str | None:
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in UNSUPPORTED_SUFFIXES:
        return "unsupported"
    return suffix if suffix in (".txt", ".json") else None


def _read_item(key: str, members: Members, split: Split | None) -> Item:
    item = Item(key, members.get("image"), split=split)
    if ".txt" in members:
        item.add_caption_file(members[".txt"].read())
    if ".json" in members:
        item.add_json(members[".json"].read())
    return item
