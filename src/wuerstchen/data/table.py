"""A folder with metadata.jsonl or metadata.csv: `file_name`, `text` and any other columns."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.folder import unread_item
from wuerstchen.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from wuerstchen.data.items import Item, Place, check_regular, parse_record, split_of_folder
from wuerstchen.data.report import Report
from wuerstchen.errors import DataError

TABLE_NAMES = frozenset({"metadata.jsonl", "metadata.csv"})

Row = tuple[int, dict[str, object] | None]
"""Line number, and the record of that line or None where it does not parse."""


def read_tables(root: Path, files: Sequence[PurePosixPath], report: Report) -> list[Item]:
    """Items of every table among `files` (relative to `root`), and images that none names.

    Several rows of one image give it several captions. `file_name` is relative to its table.
    """
    items = {
        str(file): Item(str(file), Place(root / file), split=split_of_folder(file))
        for file in files
        if file.suffix.lower() in IMAGE_SUFFIXES
    }
    for table in (file for file in files if file.name in TABLE_NAMES):
        for line, record in _read_rows(root / table):
            if record is None:
                report.skip("side JSON does not parse", f"{table} line {line}")
            else:
                _add_row(items, root, table, line, record, report)
    unread = [file for file in files if file.suffix.lower() in UNREAD_SUFFIXES]
    for file in unread:  # one that a row names is tried: Pillow may open more than we list
        items.setdefault(str(file), unread_item(root, file))
    return list(items.values())


def _add_row(
    items: dict[str, Item],
    root: Path,
    table: PurePosixPath,
    line: int,
    record: dict[str, object],
    report: Report,
) -> None:
    if table.suffix == ".csv" and "file_name" not in record:  # which then no row has
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
    item = items.setdefault(str(file), Item(str(file), split=split_of_folder(file)))
    inside = not file.is_absolute() and ".." not in file.parts
    if item.image is None and inside and _is_file(root / file):  # a suffix we do not list
        item.image = Place(root / file)
    item.add_record(record)


def _is_file(path: Path) -> bool:
    """Also of names that no file can have, as they are too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read_rows(table: Path) -> Iterator[Row]:
    try:
        check_regular(table)
        yield from _read_csv(table) if table.suffix == ".csv" else _read_jsonl(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a readable UTF-8 table, found: {error}.") from None


def _read_jsonl(table: Path) -> Iterator[Row]:
    with table.open("rb") as lines:  # one line that is no UTF-8 does not cost the others
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
