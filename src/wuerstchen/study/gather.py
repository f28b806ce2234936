"""The votes of a study folder: from its database and from files of raters without a server."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wuerstchen.errors import DataError, os_errors_as
from wuerstchen.parsing import ParseError, parse_model
from wuerstchen.study.folder import VOTES, Key, Study, key_digest, open_study
from wuerstchen.study.store import Side, StoredVote, stored_votes
from wuerstchen.study.votes import Choice, Vote, check_votes

SCRAMBLED = "scrambled"
"""In place of a system: the other image of a catch pair."""


class _FileVote(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pair: str
    left: str
    choice: Side
    seconds: float = Field(ge=0)
    at: str


class _VotesFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    study: str
    rater: str = Field(pattern=r"^[0-9a-f]{16}$")
    votes: list[_FileVote]


def gather(folder: Path, files: Sequence[Path] = ()) -> list[Vote]:
    """All votes of a study, with the names of the systems.

    files  of raters who voted without a server; several of one rater may repeat votes, such as
           one that was saved in between and one at the end

    Raises DataError for a study that changed, votes of another study, a rater with two different
    votes on one pair, and a study without votes.
    """
    study, key = open_study(folder)
    votes = stored_votes(folder / VOTES, study.id, key_digest(key))
    found: dict[tuple[str, str], StoredVote] = {}
    for path in files:
        for vote in _read_file(path, study.id):
            earlier = found.setdefault((vote.rater, vote.pair), vote)
            if (earlier.left, earlier.choice) != (vote.left, vote.choice):
                raise DataError(
                    f"{path}: expected one vote of each rater on a pair, found {vote.choice} of "
                    f"{vote.rater} on pair {vote.pair} after {earlier.choice} in an earlier file; "
                    "leave out the file that does not count."
                )
    named = list(_named((*votes, *found.values()), study, key, folder))
    check_votes(named, folder)
    return named


def _read_file(path: Path, study: str) -> Iterable[StoredVote]:
    with os_errors_as(DataError):
        data = path.read_bytes()
    try:
        values = parse_model(_VotesFile, data)
    except ParseError as error:
        raise DataError(
            f"{path}: expected a file of votes, found: {error}; ask the rater to save it again."
        ) from None
    if values.study != study:
        raise DataError(
            f"{path}: expected votes of study {study}, found those of study {values.study}; pass "
            "them to their own study."
        )
    for vote in values.votes:
        yield StoredVote(
            f"file {values.rater}", vote.pair, vote.left, vote.choice, vote.seconds, vote.at
        )


def _named(votes: Iterable[StoredVote], study: Study, key: Key, folder: Path) -> Iterable[Vote]:
    images = {pair.id: pair.images for pair in study.pairs}
    for vote in votes:
        if vote.pair not in images or vote.left not in images[vote.pair]:
            raise DataError(
                f"{folder}: expected votes on pairs of this study, found one of {vote.rater} on "
                f"pair {vote.pair}, which it does not have; leave out the file that it is from."
            )
        first, second = images[vote.pair]
        right = second if vote.left == first else first
        pair = key.pairs[vote.pair]
        a, b = key.images[vote.left].system, key.images[right].system
        choice: Choice = {"left": "a", "right": "b", "tie": "tie"}[vote.choice]  # type: ignore[assignment]
        if pair.kind == "catch" and not a:
            a, b = b, a
            choice = {"a": "b", "b": "a", "tie": "tie"}[choice]  # type: ignore[assignment]
        yield Vote(vote.rater, pair.item, a, b or SCRAMBLED, choice, pair.category, pair.kind)
