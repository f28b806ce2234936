"""One item of a source, usable or not: an image, its captions, metadata fields and split."""

import hashlib
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from wuerstchen.data.report import Reason, escape_non_utf8
from wuerstchen.errors import DataError
from wuerstchen.parsing import RECORD, ParseError, parse_json

Split = Literal["train", "test"]

_TEST_NAMES = frozenset({"test", "testing", "val", "valid", "validation", "dev", "eval"})
"""All of these are held out: none may be trained on."""

_CAPTION_FIELDS = ("captions", "caption", "text")

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""NUL bytes of UTF-16 that was read as UTF-8, and surrogates, which UTF-8 cannot encode."""


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

    def read(self) -> bytes:
        """The bytes; OSError if they cannot be read, DataError if their hash differs."""
        check_is_file(self.path)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise DataError(f"the bytes at offset {self.offset} do not match the index")
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
            if self.problem == "caption is not UTF-8 text":
                self.problem = None

    def add_caption_file(self, data: bytes) -> None:
        """Add every line of a .txt file as a caption."""
        try:
            self._add_captions(data.decode("utf-8-sig").splitlines())
        except UnicodeDecodeError:
            self.problem = "caption is not UTF-8 text"

    def add_json(self, data: bytes) -> None:
        """Add captions and metadata fields of a JSON object."""
        record = parse_record(data)
        if record is None:
            self.problem = "metadata is not a JSON object"
        else:
            self.add_record(record)

    def add_record(self, record: dict[str, object]) -> None:
        """Add captions, the split and all other fields of a record."""
        for name in _CAPTION_FIELDS:
            if name in record:
                self._add_captions(_parse_captions(record[name]))
        self.fields.update({k: v for k, v in record.items() if k not in _CAPTION_FIELDS})
        self.split = parse_split(str(record.get("split"))) or self.split

    def _add_captions(self, captions: list[str]) -> None:
        """Strip, leave out empty and repeated captions, keep the order."""
        if any(_NOT_TEXT.search(caption) for caption in captions):
            self.problem = "caption is not UTF-8 text"
            return
        known = self.captions or []
        self.captions = list(dict.fromkeys(known + [c.strip() for c in captions if c.strip()]))


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


def _parse_captions(value: object) -> list[str]:
    """Captions of a field: a string, a list, or a list as JSON text (as needed in CSV)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ParseError):
            value = parse_json(value, RECORD)
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
