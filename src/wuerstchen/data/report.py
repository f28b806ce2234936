"""What was found in the data, what is used, and what was left out for which reason."""

from dataclasses import dataclass, field
from typing import Literal

Reason = Literal[
    "image does not decode",
    "image in a format that is not read",
    "image over the pixel limit",
    "image without a caption",
    "file cannot be read",
    "caption is empty",
    "caption is not UTF-8 text",
    "caption without an image",
    "side JSON does not parse",
    "row without a file_name",
    "replaced by a later one of the same name",
    "not an uncompressed tar",
    "tar is damaged from there on",
    "beside tars, which alone are read",
    "beside a table, which alone is read",
]

_NAMES_IN_SENTENCE = 3


@dataclass(slots=True)
class Report:
    """Counts and names of one look at the data; nothing is left out without a line here."""

    path: str
    """What the user gave as data.path."""
    kind: str
    """What it was recognised as, in words."""
    train: int = 0
    """Usable pairs of the train split."""
    test: int = 0
    """Usable pairs of the test split."""
    skipped: dict[Reason, list[str]] = field(default_factory=dict)
    """Names of everything that is not used, by reason."""

    @property
    def used(self) -> int:
        return self.train + self.test

    @property
    def found(self) -> int:
        """Everything that was found: usable pairs and skipped things."""
        return self.used + sum(len(names) for names in self.skipped.values())

    def skip(self, reason: Reason, name: str) -> None:
        """Note that `name` is not used."""
        self.skipped.setdefault(reason, []).append(readable(name))

    def sentence(self) -> str:
        """One line: counts, and the first names of each reason."""
        head = (
            f"{self.path} ({self.kind}): {self.used} of {self.found} found are used, "
            f"{self.train} to train and {self.test} to test"
        )
        parts = [_describe(reason, names) for reason, names in self.skipped.items()]
        return f"{head}; skipped: {'; '.join(parts)}." if parts else f"{head}."

    def to_dict(self) -> dict[str, object]:
        """Everything, names in full, ready for JSON."""
        return {
            "path": self.path,
            "kind": self.kind,
            "found": self.found,
            "used": self.used,
            "train": self.train,
            "test": self.test,
            "skipped": {reason: list(names) for reason, names in self.skipped.items()},
        }


def _describe(reason: Reason, names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_IN_SENTENCE])
    more = ", …" if len(names) > _NAMES_IN_SENTENCE else ""
    return f"{len(names)} × {reason} ({shown}{more})"


def readable(name: str) -> str:
    """A name that can be written as UTF-8; Linux has file names of any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()
