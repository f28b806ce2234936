"""Folders of images: with same-name .txt and .json files, or with a metadata table."""

import csv
import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.images import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES
from wuerstchen.data.items import ByteRange, Item, check_is_file, folder_split, parse_record
from wuerstchen.data.report import Report
from wuerstchen.errors import DataError

TABLE_NAMES = frozenset({"metadata.jsonl", "metadata.csv"})

Row = tuple[int, dict[str, object] | None]
"""Line number and record; None if the line does not parse."""


def read_folder(root: Path, files: Sequence[PurePosixPath]) -> list[Item]:
    """Items of the images and captions among `files` (relative to `root`).

    The key of an image is its relative path. Images that differ only in suffix share captions.
    """
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    unsupported = [file for file in files if file.suffix.lower() in UNSUPPORTED_SUFFIXES]
    known, stems = set(files), {file.with_suffix("") for file in images + unsupported}
    items = [_read_item(root, image, known) for image in images]
    items += [_unsupported_item(root, image) for image in unsupported]
    alone = [file for file in files if file.with_suffix("") not in stems]
    return items + [Item(str(file), captions=[]) for file in alone if _has_captions(root / file)]


def read_tables(root: Path, files: Sequence[PurePosixPath], report: Report) -> list[Item]:
    """Items of every table among `files` (relative to `root`), and images that no table lists.

    Several rows of one image give it several captions. `file_name` is relative to its table.
    """
    items = {
        str(file): Item(str(file), ByteRange(root / file), split=folder_split(file))
        for file in files
        if file.suffix.lower() in IMAGE_SUFFIXES
    }
    for table in (file for file in files if file.name in TABLE_NAMES):
        _add_table(items, root, table, report)
    for file in files:  # if a row lists it, try it: Pillow may open more than we list
        if file.suffix.lower() in UNSUPPORTED_SUFFIXES:
            items.setdefault(str(file), _unsupported_item(root, file))
    return list(items.values())


def _unsupported_item(root: Path, image: PurePosixPath) -> Item:
    return Item(str(image), ByteRange(root / image), problem="image format is not supported")


def _read_item(root: Path, image: PurePosixPath, known: set[PurePosixPath]) -> Item:
    item = Item(str(image), ByteRange(root / image), split=folder_split(image))
    text, metadata = image.with_suffix(".txt"), image.with_suffix(".json")
    try:
        if text in known:
            item.add_caption_file(ByteRange(root / text).read())
        if metadata in known:
            item.add_json(ByteRange(root / metadata).read())
    except OSError:
        item.problem = "file cannot be read"
    return item


def _has_captions(path: Path) -> bool:
    if path.suffix != ".json":
        return path.suffix == ".txt"
    try:
        record = parse_record(ByteRange(path).read())
    except OSError:
        return False
    return record is not None and ("caption" in record or "captions" in record)


def _add_table(items: dict[str, Item], root: Path, table: PurePosixPath, report: Report) -> None:
    for line, record in _read_rows(root / table):
        if record is None:
            report.skip("metadata is not a JSON object", f"{table} line {line}")
            continue
        if table.suffix == ".csv" and "file_name" not in record:  # then no row has it
            raise DataError(
                f"{root / table} line {line}: expected a column `file_name` with the image's "
                f"path, found the columns {', '.join(record) or 'none'}."
            )
        name = record.pop("file_name", None)
        if not isinstance(name, str) or not name:
            report.skip("row without a file_name", f"{table} line {line}")
            continue
        file = table.parent / name
        item = items.setdefault(str(file), Item(str(file), split=folder_split(file)))
        inside = not file.is_absolute() and ".." not in file.parts
        # A suffix we do not list. Unlike Path.is_file, this is False for a name that is too long.
        if item.image is None and inside and os.path.isfile(root / file):
            item.image = ByteRange(root / file)
        item.add_record(record)


def _read_rows(table: Path) -> Iterator[Row]:
    try:
        check_is_file(table)
        yield from _read_csv(table) if table.suffix == ".csv" else _read_jsonl(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a readable UTF-8 table, found: {error}.") from None


def _read_jsonl(table: Path) -> Iterator[Row]:
    with table.open("rb") as lines:  # bytes, so that a line that is not UTF-8 affects no other
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(BOM_UTF8) if number == 1 else line
            if text.strip():
                try:
                    yield number, parse_record(text.decode())
                except UnicodeDecodeError:
                    yield number, None


def _read_csv(table: Path) -> Iterator[Row]:
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, restkey="", restval="")
        for row in rows:
            yield rows.line_num, {name: value for name, value in row.items() if name}
