"""Webdataset tars as img2dataset writes them: KEY.jpg, KEY.txt and KEY.json side by side.

A tar is indexed once: an image is then `size` bytes from `offset` on, read in any order. Python's
own tarfile does it; `webdataset` and `datasets` read in sequence or copy everything into a cache,
and neither can name an image that does not decode and go on.
"""

import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from wuerstchen.data.items import (
    Item,
    Place,
    Split,
    check_regular,
    split_of,
    split_of_folder,
)
from wuerstchen.data.report import Report, readable

Members = dict[str, Place]
"""Files of one key by kind: "image", "unread image", ".txt", ".json"."""


def read_tars(root: Path, tars: Sequence[PurePosixPath], report: Report) -> list[Item]:
    """Items of all tars (relative to `root`), in the order of tars and members.

    The key is the member's path without its suffix; where several tars hold the same key, the
    tar's name goes in front. Of members with one key and kind the later wins, as it does when a
    tar is unpacked; the earlier is reported.
    """
    shards = [(tar, read_shard(root, tar, report)) for tar in tars]
    counts = Counter(item.key for _, items in shards for item in items)
    for tar, items in shards:
        for item in items:
            if counts[item.key] > 1:
                item.key = readable(f"{tar.with_suffix('')}/{item.key}")
    return [item for _, items in shards for item in items]


def read_shard(root: Path, tar: PurePosixPath, report: Report) -> list[Item]:
    """Items of one tar (relative to `root`); keys are unique in it, and may not be in others.

    One that cannot be read is in the report alone.
    """
    split = split_of_shard(tar)
    try:
        index = _index(root / tar, str(tar), report)
        return [
            _read_item(key, members, split)
            for key, members in index.items()
            if "image" in members or "unread image" not in members  # captions go with it
        ]
    except OSError:
        report.skip("file cannot be read", str(tar))
        return []


def split_of_shard(tar: PurePosixPath) -> Split | None:
    """The split that a tar's name begins with (`train-00000.tar`), or that its folder names."""
    word = re.match(r"[A-Za-z]*", tar.stem)
    return (split_of(word[0]) if word else None) or split_of_folder(tar)


def _index(path: Path, name: str, report: Report) -> dict[str, Members]:
    """Members of a tar by key; what lies behind a damage is lost and reported, as is a whole tar
    that cannot be read: one of thousands must not cost the others."""
    index: defaultdict[str, Members] = defaultdict(dict)
    check_regular(path)
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                _add_member(index, path, member, name, report)
            end = archive.offset
    except tarfile.TarError as error:
        if not index:
            report.skip("not an uncompressed tar", f"{name}: {error}")
            return index
        report.skip("tar is damaged from there on", f"{name} after {next(reversed(index))}")
        return index
    if any(Place(path, end, tarfile.BLOCKSIZE).read()):  # a sound tar ends in zeros, or just ends
        report.skip("tar is damaged from there on", f"{name} at byte {end}")
    return index


def _add_member(
    index: defaultdict[str, Members],
    path: Path,
    member: tarfile.TarInfo,
    name: str,
    report: Report,
) -> None:
    file = PurePosixPath(member.name)
    kind = _kind_of(file)
    if not member.isreg() or file.name.startswith(".") or kind is None:
        return
    members = index[str(file.with_suffix(""))]
    if kind == "unread image":
        report.skip("image in a format that is not read", f"{name}/{member.name}")
    elif kind in members:
        report.skip("replaced by a later one of the same name", f"{name}/{member.name}")
    members[kind] = Place(path, member.offset_data, member.size)


def _kind_of(file: PurePosixPath) -> str | None:
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in UNREAD_SUFFIXES:
        return "unread image"
    return suffix if suffix in (".txt", ".json") else None


def _read_item(key: str, members: Members, split: Split | None) -> Item:
    item = Item(key, members.get("image"), split=split)
    if ".txt" in members:
        item.add_caption_file(members[".txt"].read())
    if ".json" in members:
        item.add_json(members[".json"].read())
    return item
