"""What a source finds under one name: perhaps an image, perhaps captions, perhaps side fields."""

import hashlib
import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from wuerstchen.data.report import Reason, readable
from wuerstchen.errors import DataError

Split = Literal["train", "test"]

_TRAIN_NAMES = frozenset({"train", "training"})
_TEST_NAMES = frozenset({"test", "testing", "val", "valid", "validation", "dev", "eval"})
"""All of these are held out: none of them may be trained on."""

_CAPTION_FIELDS = ("captions", "caption", "text")

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""UTF-16 that was read as UTF-8, and halves of characters, which no UTF-8 file can hold."""


def check_regular(path: Path) -> None:
    """Raise OSError for what is no file: opening a pipe would wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no regular file")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a file are: a whole file, or `size` bytes of a tar from `offset` on."""

    path: Path
    offset: int = 0
    size: int = -1
    sha256: str = ""
    """Of the bytes, where that is known."""

    def read(self) -> bytes:
        """The bytes; OSError where they are gone, DataError where they are others."""
        check_regular(self.path)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise DataError(f"expected the bytes that the index knows at {self.offset}")
        return data


@dataclass(slots=True)
class Item:
    """Everything that a source says about one key, usable or not."""

    key: str
    image: Place | None = None
    captions: list[str] | None = None
    """None where no file and no field speaks of a caption; then it is missing and not empty."""
    fields: dict[str, object] = field(default_factory=dict)
    split: Split | None = None
    group: str | None = None
    """What it belongs to, where a prepared set says so; else a side field or nothing does."""
    trouble: Reason | None = None
    """Why it cannot be used, where that is known before the image is decoded."""

    def __post_init__(self) -> None:
        self.key = readable(self.key)

    def say(self, caption: str) -> None:
        """Take this caption and no other, whatever was found of captions; if there is an image."""
        if self.image is not None:
            self.captions = [caption]
            if self.trouble == "caption is not UTF-8 text":
                self.trouble = None

    def add_caption_file(self, data: bytes) -> None:
        """Take every line of a .txt file as a caption."""
        try:
            self._add(data.decode("utf-8-sig").splitlines())
        except UnicodeDecodeError:
            self.trouble = "caption is not UTF-8 text"

    def add_json(self, data: bytes) -> None:
        """Take captions and side fields of a JSON object."""
        record = parse_record(data)
        if record is None:
            self.trouble = "side JSON does not parse"
        else:
            self.add_record(record)

    def add_record(self, record: dict[str, object]) -> None:
        """Take captions, the split and all other fields of a record."""
        for name in _CAPTION_FIELDS:
            if name in record:
                self._add(_strings(record[name]))
        self.fields.update({k: v for k, v in record.items() if k not in _CAPTION_FIELDS})
        named = split_of(str(record.get("split")))
        self.split = named or self.split

    def _add(self, captions: list[str]) -> None:
        """Strip, leave out what is empty or known, keep the order."""
        if any(_NO_TEXT.search(caption) for caption in captions):
            self.trouble = "caption is not UTF-8 text"
            return
        known = self.captions or []
        self.captions = list(dict.fromkeys(known + [c.strip() for c in captions if c.strip()]))


def split_of(name: str) -> Split | None:
    """The split that a word names, if it names one: validation counts as test."""
    if name.lower() in _TRAIN_NAMES:
        return "train"
    return "test" if name.lower() in _TEST_NAMES else None


def split_of_folder(relative: PurePosixPath) -> Split | None:
    """The split named by the first folder of a path inside the data."""
    return split_of(relative.parts[0]) if len(relative.parts) > 1 else None


def parse_record(data: bytes | str) -> dict[str, object] | None:
    """A JSON object, or None where `data` is anything else."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _strings(value: object) -> list[str]:
    """Captions of a field: a string, a list, or a list written as JSON (all that CSV can hold)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parsed: object = json.loads(value)
        except (ValueError, RecursionError):
            parsed = value
        value = parsed if isinstance(parsed, list) else value
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
