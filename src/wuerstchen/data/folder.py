"""Folders of images: with same-name .txt and .json files, or with a metadata table."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.file_kinds import (
    is_table,
    is_unread_archive,
    is_unread_table,
    kind_of,
    other_kind,
)
from wuerstchen.data.items import MAX_TEXT_BYTES, ByteRange, Item, folder_split, parse_record
from wuerstchen.data.report import Report
from wuerstchen.data.tables import add_table
from wuerstchen.errors import DataError


def read_folder(
    root: Path, files: Sequence[PurePosixPath], report: Report, *, caption_per_line: bool = False
) -> list[Item]:
    """Items of the images and captions among `files` (relative to `root`).

    The key of an image is its relative path. Images that differ only in suffix share captions.
    """
    images = [file for file in files if kind_of(file) == "image"]
    unsupported = [file for file in files if kind_of(file) == "unsupported"]
    stems = {file.with_suffix("") for file in images + unsupported}
    beside: dict[PurePosixPath, ByteRange] = {}
    alone: list[PurePosixPath] = []
    for file in sorted(files, key=lambda file: not file.suffix.islower()):  # .txt before .TXT
        kind = kind_of(file)
        if kind not in (".txt", ".json"):
            continue
        if file.with_suffix("") not in stems:
            alone.append(file)
        elif file.with_suffix(kind) in beside:
            report.skip("next to a file of the same name that is read", str(file))
        else:
            beside[file.with_suffix(kind)] = ByteRange(root / file)
    items = []
    for image in images:
        item = Item(str(image), ByteRange(root / image), split=folder_split(image))
        text, metadata = (beside.get(image.with_suffix(kind)) for kind in (".txt", ".json"))
        item.add_files(text, metadata, caption_per_line=caption_per_line)
        items.append(item)
    items += [_unsupported_item(root, image) for image in unsupported]
    captions = [file for file in sorted(alone) if _has_captions(root / file)]
    others = [file for file in files if kind_of(file) is None]
    report_others([*others, *sorted({*alone} - {*captions})], report)
    return items + [Item(str(file), captions=[]) for file in captions]


def read_tables(root: Path, files: Sequence[PurePosixPath], report: Report) -> list[Item]:
    """Items of every table among `files` (relative to `root`), and images that no table lists.

    Several rows of one image give it several captions.
    """
    items = {
        str(file): Item(str(file), ByteRange(root / file), split=folder_split(file))
        for file in files
        if kind_of(file) == "image"
    }
    for table in filter(is_table, files):
        add_table(items, root, table, report)
    for file in files:  # if a row lists it, try it: Pillow may open more than we list
        if kind_of(file) == "unsupported":
            items.setdefault(str(file), _unsupported_item(root, file))
    report_others([file for file in files if str(file) not in items and not is_table(file)], report)
    return list(items.values())


def report_others(files: Sequence[PurePosixPath], report: Report) -> None:
    """Name tables and archives that are not read, and count other files, by suffix."""
    for file in files:
        if is_unread_table(file):
            report.skip("table of a kind that is not read", str(file))
        elif is_unread_archive(file):
            report.skip("not an uncompressed tar", str(file))
        else:
            report.leave_out(other_kind(file))


def _unsupported_item(root: Path, image: PurePosixPath) -> Item:
    return Item(str(image), ByteRange(root / image), problem="image format is not supported")


def _has_captions(path: Path) -> bool:
    if path.suffix.lower() == ".txt":
        return True
    try:
        record = parse_record(ByteRange(path).read(MAX_TEXT_BYTES))
    except (OSError, DataError):
        return False
    return record is not None and ("caption" in record or "captions" in record)
