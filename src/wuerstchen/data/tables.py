"""Tables of captions, metadata.jsonl and metadata.csv, as the tools of this field write them."""

import csv
import os
import posixpath
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from wuerstchen.data.captions import CAPTION_FIELDS, encoding_of, is_text
from wuerstchen.data.items import (
    MAX_TEXT_BYTES,
    ByteRange,
    Item,
    check_is_file,
    folder_split,
    parse_record,
)
from wuerstchen.data.report import Reason, Report

_FILE_COLUMNS = (
    *("file_name", "filename", "file", "image", "image_file", "image_path", "image_name"),
    *("path", "file_path", "filepath", "img", "img_path"),
)
"""Names of the column with the path of the image; the first that a row has is used."""

_CAPTION_COLUMNS = (*CAPTION_FIELDS, "prompt", "image_caption")
"""Names of the column with the caption, for rows that have none of `CAPTION_FIELDS` exactly."""

_SEPARATORS = (",", ";", "\t")

_Row = tuple[int, dict[str, object] | Reason]
"""Line number, and the record or why there is none."""


def add_table(items: dict[str, Item], root: Path, table: PurePosixPath, report: Report) -> None:
    """Add the rows of a table (relative to `root`) to `items`, or new items, by key."""
    is_csv = table.suffix.lower() == ".csv"
    try:
        for line, record in (_read_csv if is_csv else _read_jsonl)(root / table):
            if isinstance(record, str):
                report.skip(record, f"{table} line {line}")
                continue
            columns = ", ".join(record) or "none"
            column = _standardise(record)
            if is_csv and column is None:  # then no row has it
                report.skip("table without a column file_name", f"{table} has {columns}")
                return
            name = record.pop(column) if column is not None else None
            if not isinstance(name, str) or not name:
                report.skip("row without a file_name", f"{table} line {line}")
                continue
            item = _find_item(items, root, table.parent, name)
            item.add_record(record)
    except OSError:
        report.skip("file cannot be read", str(table))


def _standardise(record: dict[str, object]) -> str | None:
    """The column with the path; the caption column gets a name of `CAPTION_FIELDS`."""
    names: dict[str, str] = {}
    for name in record:
        names.setdefault(name.strip().lower().replace(" ", "_"), name)
    if not any(name in record for name in CAPTION_FIELDS):
        for column in _CAPTION_COLUMNS:
            if column in names:
                record["text"] = record.pop(names[column])
                break
    return next((names[column] for column in _FILE_COLUMNS if column in names), None)


def _find_item(items: dict[str, Item], root: Path, parent: PurePosixPath, name: str) -> Item:
    """The item of the image that a row names; without an image if there is none in `root`."""
    for key in _possible_keys(root, parent, name):
        known = items.get(key)
        if known is not None and known.image is not None:
            return known
        # A suffix we do not list. Unlike Path.is_file, this is False for a name that is too long.
        if os.path.isfile(root / key):
            file = PurePosixPath(key)
            found = items.setdefault(key, Item(key, split=folder_split(file)))
            found.image = ByteRange(root / file)
            return found
    file = parent / name
    return items.setdefault(str(file), Item(str(file), split=folder_split(file)))


def _possible_keys(root: Path, parent: PurePosixPath, name: str) -> Iterator[str]:
    """Paths relative to `root` that may be meant, the likeliest first, none outside of it.

    Tools write paths relative to the table or to the whole data, absolute ones, and backslashes.
    """
    if "\0" in name:
        return
    for text in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
        whole = [
            os.path.relpath(text, base) for base in (os.path.abspath(root), os.path.realpath(root))
        ]
        for path in whole if text.startswith("/") else [str(parent / text), text]:
            key = posixpath.normpath(path)
            if key != "." and not key.startswith("../"):
                yield key


def _lines(table: Path, newline: str) -> Iterator[str]:
    """Lines of UTF-8, or UTF-16 with its mark; bytes that are neither become surrogates.

    newline  as of `open`: where lines end

    Of a line over the limit, only the start is read.
    """
    check_is_file(table)
    with table.open("rb") as start:
        encoding = encoding_of(start.read(2))
    errors = "replace" if encoding == "utf-16" else "surrogateescape"
    with table.open(encoding=encoding, errors=errors, newline=newline) as file:
        while line := file.readline(MAX_TEXT_BYTES):
            yield line
            while len(line) == MAX_TEXT_BYTES and not line.endswith("\n"):
                line = file.readline(MAX_TEXT_BYTES)


def _read_jsonl(table: Path) -> Iterator[_Row]:
    for number, line in enumerate(_lines(table, "\n"), start=1):
        if len(line) == MAX_TEXT_BYTES:
            yield number, "row over the size limit"
        elif line.strip():
            record = parse_record(line.removeprefix("\ufeff")) if is_text(line) else None
            yield number, "metadata is not a JSON object" if record is None else record


def _read_csv(table: Path) -> Iterator[_Row]:
    lines = _lines(table, "")
    blank, first = 0, next(lines, "")
    while first and not first.strip():
        blank, first = blank + 1, next(lines, "")
    named = re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE)  # of Excel
    separator = named[1] if named else _separator(first)
    before = () if named else (first,)
    records = _records(chain(before, lines), separator, blank + 1 + bool(named))
    _, header = next(records, (1, []))
    if isinstance(header, str):
        header = []
    header = [name.strip() for name in header]
    for number, row in records:
        if isinstance(row, str):
            yield number, row
        elif any(value.strip() for value in row[len(header) :]):
            yield number, "row with more fields than columns"
        elif row:
            values = row + [""] * (len(header) - len(row))
            yield number, {name: value for name, value in zip(header, values, strict=False) if name}


def _separator(header: str) -> str:
    """The first character that separates a column of paths from the others; a comma without one."""
    for separator in _SEPARATORS:
        columns = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        if _standardise(dict.fromkeys(columns)) is not None:
            return separator
    return ","


def _records(
    lines: Iterator[str], separator: str, number: int
) -> Iterator[tuple[int, list[str] | Reason]]:
    """Line numbers (the first is `number`) and fields, or why there are none.

    A record of several lines must be quoted correctly and end. Otherwise its first line alone is
    lost: a quote that never closes would swallow all rows that follow.
    """
    waiting: deque[str] = deque()

    def take(taken: list[str]) -> Iterator[str]:
        size = 0
        while size < MAX_TEXT_BYTES:
            line = waiting.popleft() if waiting else next(lines, None)
            if line is None:
                return
            size += len(line)
            taken.append(line)
            yield line

    while True:
        taken: list[str] = []
        try:
            row = next(csv.reader(take(taken), delimiter=separator, skipinitialspace=True), None)
            if row is None:
                return
            if len(taken) > 1:
                next(csv.reader(taken, delimiter=separator, skipinitialspace=True, strict=True))
            yield number, row
        except csv.Error:
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            yield number, "row with an open quote or a very long field"
        number += len(taken)
