"""Report of a data source: how much was found, what is used, and what was skipped and why."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Reason = Literal[
    "image does not decode",
    "image format is not supported",
    "image over the pixel limit",
    "image without a caption",
    "text beside the pixels over the size limit",
    "file cannot be read",
    "folder cannot be read",
    "file over the size limit",
    "caption is empty",
    "caption is not UTF-8 text",
    "caption is neither text nor a number",
    "caption without an image",
    "metadata is not a JSON object",
    "row without a file_name",
    "row with more fields than columns",
    "row over the size limit",
    "row with an open quote or a very long field",
    "table without a column file_name",
    "table of a kind that is not read",
    "replaced by a later file of the same name",
    "next to a file of the same name that is read",
    "not an uncompressed tar",
    "tar is corrupt after this point",
    "size in the tar is not true",
    "sparse file in a tar",
    "link in a tar that leads to no file in it",
    "device in a tar",
    "next to tars, which take precedence",
    "next to a table, which takes precedence",
]

Note = Literal[
    "EXIF orientation other than 1 to 8",
    "EXIF that cannot be read",
    "text or profile over the size limit",
]
"""What is not used of an image that is used."""

_NAMES_IN_SUMMARY = 3


@dataclass(slots=True)
class Report:
    """Counts and names; everything that is not used is in it."""

    path: str
    """data.path as the user gave it."""
    kind: str
    """Kind of source, in words."""
    train: int = 0
    test: int = 0
    """Usable pairs of each split."""
    skipped: dict[Reason, list[str]] = field(default_factory=dict)
    """Names of images, captions, rows and tars that are not used, by reason."""
    ignored: dict[Note, list[str]] = field(default_factory=dict)
    """Names of used images, by what is not used of them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Files that are no data: hidden ones, those of the system by name, others by suffix."""

    @property
    def used(self) -> int:
        return self.train + self.test

    @property
    def found(self) -> int:
        """Usable pairs and skipped items."""
        return self.used + sum(len(names) for names in self.skipped.values())

    def skip(self, reason: Reason, name: str) -> None:
        """Record that `name` is not used."""
        self.skipped.setdefault(reason, []).append(escape_non_utf8(name))

    def ignore(self, note: Note, name: str) -> None:
        """Record that something of the image `name` is not used."""
        self.ignored.setdefault(note, []).append(escape_non_utf8(name))

    def leave_out(self, name: str) -> None:
        """Count a file or folder that is no data."""
        self.left_out[escape_non_utf8(name)] += 1

    def summary(self) -> str:
        """One line: counts, and the first names of each reason."""
        parts = [
            f"{self.path} ({self.kind}): using {self.used} of {self.found} items, "
            f"{self.train} for training and {self.test} for testing"
        ]
        others = [f"{count} × {name}" for name, count in self.left_out.most_common()]
        for start, found in (
            ("skipped", [_describe(*each) for each in self.skipped.items()]),
            ("used without", [_describe(*each) for each in self.ignored.items()]),
            ("no data", others),
        ):
            if found:
                parts.append(f"{start}: {'; '.join(found)}")
        return f"{'; '.join(parts)}."

    def to_dict(self) -> dict[str, object]:
        """The whole report, ready for JSON."""
        counts = {"found": self.found, "used": self.used, "train": self.train, "test": self.test}
        skipped = {reason: list(names) for reason, names in self.skipped.items()}
        more = {"ignored": dict(self.ignored), "left_out": dict(self.left_out)}
        return {
            **{"path": self.path, "kind": self.kind, **counts, "skipped": skipped},
            **{name: found for name, found in more.items() if found},
        }


def _describe(reason: str, names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_IN_SUMMARY])
    more = ", …" if len(names) > _NAMES_IN_SUMMARY else ""
    return f"{len(names)} × {reason} ({shown}{more})"


def escape_non_utf8(name: str) -> str:
    """A name that can be written as UTF-8; Linux allows any bytes in file names."""
    return name.encode("utf-8", "backslashreplace").decode()
