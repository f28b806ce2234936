"""Votes as a table: one row for each time that a rater compared two images.

A CSV file of votes has these columns; the last two may be missing:

rater     any name
item      which two images were compared; raters who saw the same two have the same item
a, b      names of the systems
choice    a, b or tie
category  of the prompt
kind      comparison; repeat, the same item shown to the same rater once more; or catch, a pair
          whose better image is known to be that of system a
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, cast, get_args

from wuerstchen.display import printable
from wuerstchen.errors import DataError, os_errors_as

Choice = Literal["a", "b", "tie"]
VoteKind = Literal["comparison", "repeat", "catch"]
Source = str | Path

_REQUIRED = ("rater", "item", "a", "b", "choice")
_MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Vote:
    """One comparison by one rater."""

    rater: str
    item: str
    a: str
    b: str
    choice: Choice
    category: str = ""
    kind: VoteKind = "comparison"

    @property
    def outcome(self) -> int:
        """1 if `a` won, -1 if `b` won, 0 for a tie."""
        return {"a": 1, "b": -1, "tie": 0}[self.choice]

    def turned(self) -> "Vote":
        """The same vote with the two systems in the order of their names."""
        if self.kind == "catch" or self.a <= self.b:
            return self
        other: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie"}
        return Vote(
            self.rater, self.item, self.b, self.a, other[self.choice], self.category, self.kind
        )


def read_votes(path: Path) -> list[Vote]:
    """Read a CSV file of votes.

    Raises DataError for a file that cannot be read, a missing column, an unknown choice or kind,
    and a rater who has two votes on one item.
    """
    with os_errors_as(DataError):
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: expected at most {_MAX_BYTES >> 20} MiB of votes.")
        data = path.read_bytes()
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = rows.fieldnames or ()
        if missing := [name for name in _REQUIRED if name not in columns]:
            raise DataError(
                f"{path}: expected the columns {', '.join(_REQUIRED)}, found no "
                f"{' and no '.join(missing)}; add what is missing to its first line."
            )
        votes = [_vote(row, f"{path} line {rows.line_num}") for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8, found: {error}.") from None
    check_votes(votes, path)
    return votes


def check_votes(votes: Sequence[Vote], source: Source) -> None:
    """Raise DataError without comparisons, and for two votes of one rater on one item."""
    if not any(vote.kind == "comparison" for vote in votes):
        raise DataError(f"{source}: expected votes, found none; ask people to vote first.")
    seen = set()
    for vote in votes:
        key = (vote.rater, vote.item, vote.kind)
        if key in seen:
            raise DataError(
                f"{source}: expected one vote of each rater on each item, found two of rater "
                f"{printable(vote.rater)} on item {printable(vote.item)}; remove one of them, or "
                "give the second the kind repeat."
            )
        seen.add(key)


def write_votes(votes: Iterable[Vote]) -> bytes:
    """The content of such a file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(each.name for each in fields(Vote))
    writer.writerows(astuple(vote) for vote in votes)
    return text.getvalue().encode()


def _vote(row: dict[str, str | None], place: str) -> Vote:
    values = {name: (row.get(name) or "").strip() for name in _REQUIRED}
    if empty := [name for name, value in values.items() if not value]:
        raise DataError(f"{place}: expected a value in each column, found no {empty[0]}; add it.")
    kind = (row.get("kind") or "comparison").strip()
    for name, value, known in (
        ("choice", values["choice"], get_args(Choice)),
        ("kind", kind, get_args(VoteKind)),
    ):
        if value not in known:
            raise DataError(
                f"{place}: expected the {name} {', '.join(known[:-1])} or {known[-1]}, found "
                f"{printable(value)}; correct it."
            )
    if values["a"] == values["b"]:
        raise DataError(
            f"{place}: expected two systems, found {printable(values['a'])} twice; correct it."
        )
    return Vote(
        values["rater"],
        values["item"],
        values["a"],
        values["b"],
        cast(Choice, values["choice"]),
        (row.get("category") or "").strip(),
        cast(VoteKind, kind),
    )
