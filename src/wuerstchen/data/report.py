"""Report of a data source: how much was found, what is used, and what was skipped and why."""

from dataclasses import dataclass, field
from typing import Literal

Reason = Literal[
    "image does not decode",
    "image format is not supported",
    "image over the pixel limit",
    "image without a caption",
    "file cannot be read",
    "caption is empty",
    "caption is not UTF-8 text",
    "caption without an image",
    "metadata is not a JSON object",
    "row without a file_name",
    "replaced by a later file of the same name",
    "not an uncompressed tar",
    "tar is corrupt after this point",
    "next to tars, which take precedence",
    "next to a table, which takes precedence",
]

_NAMES_IN_SUMMARY = 3


@dataclass(slots=True)
class Report:
    """Counts and names; everything that is skipped is listed here."""

    path: str
    """data.path as the user gave it."""
    kind: str
    """Kind of source, in words."""
    train: int = 0
    test: int = 0
    """Usable pairs of each split."""
    skipped: dict[Reason, list[str]] = field(default_factory=dict)
    """Names of everything that is not used, by reason."""

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

    def summary(self) -> str:
        """One line: counts, and the first names of each reason."""
        start = (
            f"{self.path} ({self.kind}): using {self.used} of {self.found} items, "
            f"{self.train} for training and {self.test} for testing"
        )
        reasons = [_describe(reason, names) for reason, names in self.skipped.items()]
        return f"{start}; skipped: {'; '.join(reasons)}." if reasons else f"{start}."

    def to_dict(self) -> dict[str, object]:
        """The whole report, ready for JSON."""
        counts = {"found": self.found, "used": self.used, "train": self.train, "test": self.test}
        skipped = {reason: list(names) for reason, names in self.skipped.items()}
        return {"path": self.path, "kind": self.kind, **counts, "skipped": skipped}


def _describe(reason: Reason, names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_IN_SUMMARY])
    more = ", …" if len(names) > _NAMES_IN_SUMMARY else ""
    return f"{len(names)} × {reason} ({shown}{more})"


def escape_non_utf8(name: str) -> str:
    """A name that can be written as UTF-8; Linux allows any bytes in file names."""
    return name.encode("utf-8", "backslashreplace").decode()
