"""The folder of a study: what raters see, and the key that says which image is of which system.

OUT/study.json   what raters see: title, question, prompts, names of images; nothing of systems
OUT/key.json     systems, sources, seeds, kind of each pair, digests; never shown to raters
OUT/images/      PNG files without metadata under random names
OUT/votes.sqlite the votes, made by `wuerstchen study serve`
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from wuerstchen.errors import DataError, os_errors_as
from wuerstchen.parsing import OWN, ParseError, parse_model
from wuerstchen.study.votes import VoteKind

STUDY, KEY, IMAGES, VOTES = "study.json", "key.json", "images", "votes.sqlite"

_Name = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_AnyRecord = TypeVar("_AnyRecord", bound=_Record)


class Pair(_Record):
    """Two images that a rater compares."""

    id: _Name
    prompt: str
    images: tuple[_Name, _Name] = Field(strict=False)
    """Names of the files without their suffix, in random order."""


class Study(_Record):
    """What raters see."""

    version: Literal[1] = 1
    id: _Name
    title: str
    question: str
    pairs: list[Pair]
    parts: list[list[str]]
    """Ids of the pairs of one rater: the first rater gets the first part, and so on around."""

    def part(self, rater: int) -> list[Pair]:
        """The pairs of a rater, by number from 0."""
        chosen = set(self.parts[rater % len(self.parts)])
        return [pair for pair in self.pairs if pair.id in chosen]


class KeyImage(_Record):
    """Where an image comes from."""

    system: str
    """Empty for an image without content, of a catch pair."""
    source: str
    """Name of the file, or the seed of a model."""
    sha256: str


class KeyPair(_Record):
    """What a pair is for."""

    kind: VoteKind
    item: str
    """The id of the first pair with these images, of which a repeat is another."""
    category: str


class Key(_Record):
    """Which image is of which system; never shown to raters."""

    version: Literal[1] = 1
    study_sha256: str
    seed: int
    systems: dict[str, str]
    """Sources by name."""
    images: dict[str, KeyImage]
    pairs: dict[str, KeyPair]


def open_study(folder: Path) -> tuple[Study, Key]:
    """Read a study, and check that its files are those that were made.

    Raises DataError for a folder that is no study, and for a file that is missing or changed.
    """
    with os_errors_as(DataError):
        if not (folder / STUDY).is_file():
            raise DataError(
                f"{folder}: expected a study, found no {STUDY}; make one with "
                "`wuerstchen study create`."
            )
        data = (folder / STUDY).read_bytes()
        study = _read(Study, folder / STUDY, data)
        key = _read(Key, folder / KEY, (folder / KEY).read_bytes())
        if hashlib.sha256(data).hexdigest() != key.study_sha256:
            raise _changed(folder / STUDY)
        shown = {name for pair in study.pairs for name in pair.images}
        if key.images.keys() != shown or key.pairs.keys() != {pair.id for pair in study.pairs}:
            raise _changed(folder / KEY)
        for name, image in key.images.items():
            path = folder / IMAGES / f"{name}.png"
            if not path.is_file():
                raise DataError(f"{path}: expected an image of the study, found none; {_RESTORE}")
            if hashlib.sha256(path.read_bytes()).hexdigest() != image.sha256:
                raise _changed(path)
    return study, key


def key_digest(key: Key) -> str:
    """SHA-256 of what a key says: votes mean nothing with another one."""
    return hashlib.sha256(key.model_dump_json().encode()).hexdigest()


_RESTORE = "restore the folder from a copy, or make a new study."


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: expected the file that was made, found a changed one; {_RESTORE}")


def _read(kind: type[_AnyRecord], path: Path, data: bytes) -> _AnyRecord:
    try:
        return parse_model(kind, data, OWN)
    except ParseError as error:
        raise DataError(f"{path}: expected a file of a study, found: {error}; {_RESTORE}") from None
