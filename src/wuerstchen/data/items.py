"""One item of a source, usable or not: an image, its captions, metadata fields and split."""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from wuerstchen.data.captions import (
    CAPTION_FIELDS,
    clean,
    decode_text,
    is_text,
    lines_of,
    parse_captions,
    same_words,
)
from wuerstchen.data.report import Reason, escape_non_utf8
from wuerstchen.errors import DataError
from wuerstchen.parsing import RECORD, ParseError, parse_json

Split = Literal["train", "test"]

_TEST_NAMES = frozenset({"test", "testing", "val", "valid", "validation", "dev", "eval"})
"""All of these are held out: none may be trained on."""

_CAPTION_PROBLEMS: tuple[Reason, ...] = (
    "caption is not UTF-8 text",
    "caption is neither text nor a number",
)

MAX_IMAGE_BYTES = 2**30
"""Larger files are not read: an image of the most pixels takes less, even without compression."""

MAX_TEXT_BYTES = 2**24
"""Limit of a caption file, of a metadata file and of a row of a table."""


class FileTooLargeError(DataError):
    """A file has more bytes than an image or a caption needs."""


class DamagedFileError(DataError):
    """The bytes of a file are not those that were written."""


def check_is_file(path: Path) -> None:
    """Raise OSError unless `path` is a regular file: opening a pipe would block forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is not a regular file")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A whole file, or `size` bytes of a tar from `offset` on."""

    path: Path
    offset: int = 0
    size: int = -1
    sha256: str = ""
    """Expected hash of the bytes; empty if unknown."""

    def read(self, limit: int = MAX_IMAGE_BYTES) -> bytes:
        """The bytes.

        Raises OSError if the file does not have them, FileTooLargeError if they are more than
        `limit`, and DamagedFileError if their hash differs.
        """
        check_is_file(self.path)
        with self.path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            size = end - self.offset if self.size == -1 else self.size
            if not 0 <= self.offset <= self.offset + size <= end:
                raise OSError(f"{self.path} has no {size} bytes at offset {self.offset}")
            if size > limit:
                raise FileTooLargeError(f"expected at most {limit:,} bytes, found {size:,}")
            file.seek(self.offset)
            data = file.read(size)
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise DamagedFileError(f"the bytes at offset {self.offset} do not match the index")
        return data


@dataclass(slots=True)
class Item:
    """Everything that a source has under one key."""

    key: str
    image: ByteRange | None = None
    captions: list[str] | None = None
    """None: no file and no field for captions; empty: there is one, without text."""
    fields: dict[str, object] = field(default_factory=dict)
    """Metadata: JSON keys or table columns other than captions."""
    split: Split | None = None
    group: str | None = None
    """Set by a prepared set; otherwise it follows from `fields`."""
    problem: Reason | None = None
    """Why the item cannot be used, if that is known before the image is decoded."""

    def __post_init__(self) -> None:
        self.key = escape_non_utf8(self.key)

    def override_caption(self, caption: str) -> None:
        """Use this caption alone; items without an image are left as they are."""
        if self.image is not None:
            self.captions = [caption]
            if self.problem in _CAPTION_PROBLEMS:
                self.problem = None

    def add_files(
        self, text: ByteRange | None, metadata: ByteRange | None, *, caption_per_line: bool
    ) -> None:
        """Add the captions and fields of a .txt file and a JSON file.

        caption_per_line  every line of the text is a caption; otherwise all of it is one
        """
        try:
            if text is not None:
                self._add_text(text.read(MAX_TEXT_BYTES), caption_per_line)
            if metadata is not None:
                self._add_json(metadata.read(MAX_TEXT_BYTES), caption_per_line)
        except OSError:
            self.problem = "file cannot be read"
        except FileTooLargeError:
            self.problem = "file over the size limit"

    def add_record(self, record: dict[str, object]) -> None:
        """Add captions, the split and all other fields of a record."""
        for name in CAPTION_FIELDS:
            if name in record:
                self._add_captions(parse_captions(record[name]))
        self.fields.update({k: v for k, v in record.items() if k not in CAPTION_FIELDS})
        self.split = parse_split(str(record.get("split"))) or self.split

    def _add_text(self, data: bytes, caption_per_line: bool) -> None:
        try:
            text = decode_text(data)
        except UnicodeDecodeError:
            self.problem = "caption is not UTF-8 text"
            return
        self._add_captions(lines_of(text) if caption_per_line else [text])

    def _add_json(self, data: bytes, caption_per_line: bool) -> None:
        """Captions that only break the text into other lines count once: tools write both files."""
        record = parse_record(data)
        if record is None:
            self.problem = "metadata is not a JSON object"
            return
        parsed = [parse_captions(record[name]) for name in CAPTION_FIELDS if name in record]
        texts, found = self.captions or [], clean(text for each in parsed for text in each or [])
        broken = len(texts) > 1 or any("\n" in text for text in texts + found)
        if texts and broken and same_words(texts, found):
            self.captions = texts if caption_per_line else found
            record = {key: value for key, value in record.items() if key not in CAPTION_FIELDS}
        self.add_record(record)

    def _add_captions(self, captions: list[str] | None) -> None:
        """Strip, leave out empty and repeated captions, keep the order."""
        if captions is None:
            self.problem = "caption is neither text nor a number"
        elif not all(map(is_text, captions)):
            self.problem = "caption is not UTF-8 text"
        else:
            self.captions = clean([*(self.captions or []), *captions])


def parse_split(name: str) -> Split | None:
    """The split that `name` stands for, if any; validation counts as test."""
    if name.lower() in _TEST_NAMES:
        return "test"
    return "train" if name.lower() in ("train", "training") else None


def folder_split(relative: PurePosixPath) -> Split | None:
    """The split named by the first folder of a path inside the data."""
    return parse_split(relative.parts[0]) if len(relative.parts) > 1 else None


def parse_record(data: bytes | str) -> dict[str, object] | None:
    """A JSON object; None if `data` is anything else."""
    try:
        record = parse_json(data, RECORD)
    except ParseError:
        return None
    return record if isinstance(record, dict) else None
