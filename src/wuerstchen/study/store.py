"""Votes of raters in an SQLite database, on disk before a rater sees the next pair."""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, final

from wuerstchen.errors import DataError, SaveError

Side = Literal["left", "right", "tie"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS study_key (sha256 TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS raters (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rater INTEGER NOT NULL REFERENCES raters (number),
    pair TEXT NOT NULL,
    "left" TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie')),
    seconds REAL NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS votes_of_pairs ON votes (rater, pair);
"""


class VotedError(DataError):
    """The rater has a vote on this pair already."""


@dataclass(frozen=True, slots=True)
class StoredVote:
    """A vote as a rater gave it."""

    rater: str
    pair: str
    left: str
    """Name of the image that was shown on the left."""
    choice: Side
    seconds: float
    """From the images to the vote."""
    at: str
    """Time in UTC, ISO 8601."""


@final
class VoteStore:
    """The votes of one study. Changed votes are kept: the last one of a rater on a pair counts."""

    def __init__(self, path: Path, study: str, key: str) -> None:
        """Open or make the database.

        study  id of the study
        key    digest of its key, which is stored at first, and compared from then on

        Raises DataError for a file that is none, and for one of another study or key.
        """
        self._path, self._lock = path, threading.Lock()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=30)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # on disk also after a power cut
            self._db.executescript(_SCHEMA)
            with self._db:
                if self._db.execute("SELECT 1 FROM study").fetchone() is None:
                    self._db.execute("INSERT INTO study VALUES (?)", (study,))
                if self._db.execute("SELECT 1 FROM study_key").fetchone() is None:
                    self._db.execute("INSERT INTO study_key VALUES (?)", (key,))
            (found,) = self._db.execute("SELECT id FROM study").fetchone()
            (found_key,) = self._db.execute("SELECT sha256 FROM study_key").fetchone()
        except sqlite3.Error as error:
            raise DataError(
                f"{path}: expected a database of votes that can be written, found: {error}; move "
                "it elsewhere, or correct its permissions."
            ) from None
        if found != study:
            self._db.close()
            raise DataError(
                f"{path}: expected votes of study {study}, found those of study {found}; move the "
                "file to its own study."
            )
        if found_key != key:
            self._db.close()
            raise DataError(
                f"{path}: expected votes given with the key of this folder, found those of another "
                "key, by which they would mean other systems; restore key.json from a copy."
            )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def tokens(self, count: int) -> list[str]:
        """The secret tokens of the first `count` raters, made where there are none yet."""
        with self._writing("could not be written", "start again"):
            (have,) = self._db.execute("SELECT count(*) FROM raters").fetchone()
            for number in range(have, count):
                token = secrets.token_urlsafe(12)
                self._db.execute("INSERT INTO raters VALUES (?, ?)", (number, token))
            rows = self._db.execute("SELECT token FROM raters ORDER BY number LIMIT ?", (count,))
            return [token for (token,) in rows]

    def rater(self, token: str) -> int | None:
        """The number of the rater with this token, from 0."""
        with self._lock:
            query = "SELECT number FROM raters WHERE token = ?"
            found = self._db.execute(query, (token,)).fetchone()
        return None if found is None else int(found[0])

    def save(
        self, rater: int, pair: str, left: str, choice: Side, seconds: float, *, change: bool
    ) -> None:
        """Store a vote; it is on disk when this returns.

        change  whether the rater means to replace an earlier vote on this pair

        Raises VotedError if there is one and the rater does not, SaveError if the disk is full.
        """
        query = "SELECT choice FROM votes WHERE rater = ? AND pair = ? ORDER BY id DESC LIMIT 1"
        with self._writing("the vote could not be saved", "vote again"):
            found = self._db.execute(query, (rater, pair)).fetchone()
            if found is not None and not change:
                raise VotedError(
                    f"Expected one vote of a rater on a pair, found a vote ({found[0]}) from "
                    "before, maybe of another window; go back to change it."
                )
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            values = (rater, pair, left, choice, seconds, at)
            self._db.execute(
                'INSERT INTO votes (rater, pair, "left", choice, seconds, at) '
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )

    def votes(self, rater: int | None = None) -> list[StoredVote]:
        """The votes that count, of one rater or of all."""
        with self._lock:
            return _read(self._db, rater)

    @contextmanager
    def _writing(self, problem: str, then: str) -> Iterator[None]:
        with self._lock:
            try:
                with self._db:  # commits, or rolls back
                    self._db.execute("BEGIN IMMEDIATE")
                    yield
            except sqlite3.Error as error:
                raise SaveError(
                    f"{self._path}: {problem} ({error}); free some space, then {then}."
                ) from None


def stored_votes(path: Path, study: str, key: str) -> list[StoredVote]:
    """The votes in a database, which may be in use; none if there is none.

    Raises DataError as `VoteStore` does.
    """
    if not path.exists():
        return []
    with closing(VoteStore(path, study, key)) as store:
        return store.votes()


def _read(db: sqlite3.Connection, rater: int | None) -> list[StoredVote]:
    query = (
        'SELECT rater, pair, "left", choice, seconds, at FROM votes WHERE id IN '
        "(SELECT max(id) FROM votes GROUP BY rater, pair) AND (? IS NULL OR rater = ?) ORDER BY id"
    )
    return [
        StoredVote(f"rater {number + 1}", *rest)
        for number, *rest in db.execute(query, (rater, rater))
    ]
