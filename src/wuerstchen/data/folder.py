"""Folders of images: with same-name .txt and .json files, or with a metadata table."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.images import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES
from wuerstchen.data.items import (
    ByteRange,
    Item,
    check_regular_file,
    parse_record,
    split_from_folder,
)
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
    known = set(files)
    items = [_read_item(root, image, known) for image in images]
    items += [_unsupported_item(root, image) for image in unsupported]
    stems = {file.with_suffix("") for file in images + unsupported}
    return items + _orphaned_captions(root, files, stems)


def read_tables(root: Path, files: Sequence[PurePosixPath], report: Report) -> list[Item]:
    """Items of every table among `files` (relative to `root`), and images that no table lists.

    Several rows of one image give it several captions. `file_name` is relative to its table.
    """
    items = {
        str(file): Item(str(file), ByteRange(root / file), split=split_from_folder(file))
        for file in files
        if file.suffix.lower() in IMAGE_SUFFIXES
    }
    for table in (file for file in files if file.name in TABLE_NAMES):
        for line, record in _read_rows(root / table):
            if record is None:
                report.skip("metadata is not a JSON object", f"{table} line {line}")
            else:
                _add_row(items, root, table, line, record, report)
    unsupported = [file for file in files if file.suffix.lower() in UNSUPPORTED_SUFFIXES]
    for file in unsupported:  # if a row lists it, try it: Pillow may open more than we list
        items.setdefault(str(file), _unsupported_item(root, file))
    return list(items.values())


def _unsupported_item(root: Path, image: PurePosixPath) -> Item:
    return Item(str(image), ByteRange(root / image), problem="image format is not supported")


def _read_item(root: Path, image: PurePosixPath, known: set[PurePosixPath]) -> Item:
    item = Item(str(image), ByteRange(root / image), split=split_from_folder(image))
    text, metadata = image.with_suffix(".txt"), image.with_suffix(".json")
    try:
        if text in known:
            item.add_caption_file(ByteRange(root / text).read())
        if metadata in known:
            item.add_json(ByteRange(root / metadata).read())
    except OSError:
        item.problem = "file cannot be read"
    return item


def _orphaned_captions(
    root: Path, files: Iterable[PurePosixPath], stems: set[PurePosixPath]
) -> list[Item]:
    """Captions whose image is missing; JSON files without captions are ignored."""
    orphans = [file for file in files if file.with_suffix("") not in stems]
    return [Item(str(file), captions=[]) for file in orphans if _holds_captions(root / file)]


def _holds_captions(path: Path) -> bool:
    if path.suffix != ".json":
        return path.suffix == ".txt"
    try:
        record = parse_record(ByteRange(path).read())
    except OSError:
        return False
    return record is not None and any(name in record for name in ("caption", "captions"))


def _add_row(
    items: dict[str, Item],
    root: Path,
    table: PurePosixPath,
    line: int,
    record: dict[str, object],
    report: Report,
) -> None:
    if table.suffix == ".csv" and "file_name" not in record:  # then no row has it
        columns = ", ".join(record) or "none"
        raise DataError(
            f"{root / table} line {line}: expected a column `file_name` with the image's path, "
            f"found the columns {columns}."
        )
    name = record.pop("file_name", None)
    if not isinstance(name, str) or not name:
        report.skip("row without a file_name", f"{table} line {line}")
        return
    file = table.parent / name
    item = items.setdefault(str(file), Item(str(file), split=split_from_folder(file)))
    inside = not file.is_absolute() and ".." not in file.parts
    if item.image is None and inside and _is_file(root / file):  # a suffix we do not list
        item.image = ByteRange(root / file)
    item.add_record(record)


def _is_file(path: Path) -> bool:
    """Path.is_file, but False for names that are not valid, for example too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read_rows(table: Path) -> Iterator[Row]:
    try:
        check_regular_file(table)
        yield from _read_csv(table) if table.suffix == ".csv" else _read_jsonl(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a readable UTF-8 table, found: {error}.") from None


def _read_jsonl(table: Path) -> Iterator[Row]:
    with table.open("rb") as lines:  # bytes, so that a line that is not UTF-8 affects no other
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(BOM_UTF8) if number == 1 else line
            if text.strip():
                yield number, _parse_line(text)


def _parse_line(line: bytes) -> dict[str, object] | None:
    try:
        return parse_record(line.decode())
    except UnicodeDecodeError:
        return None


def _read_csv(table: Path) -> Iterator[Row]:
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, restkey="", restval="")
        for row in rows:
            yield rows.line_num, {name: value for name, value in row.items() if name}
