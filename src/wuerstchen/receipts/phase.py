"""A phase of work, as a line of JSON, and the digests of what it worked with."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

import wuerstchen
from wuerstchen.parsing import first_problem, parse_object
from wuerstchen.receipts.amounts import Amounts

LARGEST = 10**30
"""Above every number of a phase: a hundred thousand times the operations of any training. Sums of
such numbers stay finite."""

Count = Annotated[int, Field(ge=0, le=LARGEST)]

_OLD_KINDS = {"look": "validation", "failed tries": "failed attempts"}


def current_kind(kind: object) -> object:
    """The current name of a kind of work; earlier ledgers and receipts have others."""
    return _OLD_KINDS.get(kind, kind) if isinstance(kind, str) else kind


Kind = Annotated[
    Literal["preparation", "encoding", "training", "validation", "evaluation"],
    BeforeValidator(current_kind),
]

End = Literal["open", "done", "stopped", "killed"]
"""Running; ended normally; by an error or Ctrl-C; by the system."""


class Phase(BaseModel):
    """The work of one process, from its start or resumption to its end."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    stage: str = Field(pattern=r"^[^./\\\x00][^/\\\x00]*$")
    """Name of the run folder, such as `b-pretraining`; `data`: preparation; `model`: all stages."""
    kind: Kind
    started: str
    """Date and time in UTC, ISO 8601; nothing is ordered by it, as a clock may be set back."""
    end: End
    error: str = ""
    """First line of the error that stopped it."""
    resumed_at: Count | None = Field(default=None, alias="at")
    """Images of earlier phases that it resumed from; work beyond them is lost. None if the work
    cannot be resumed."""
    saved: Count | None = Field(default=None, alias="standing")
    """Its images whose results are on disk, however it ended; None if that depends on its end or on
    a later phase."""
    devices: int = Field(ge=1, le=LARGEST)
    device: str
    work: dict[Kind, Amounts]
    """Amounts by kind: its own, and validation within a training."""
    energy: str
    """How its energy was determined."""
    country: str
    grams_per_kwh: float = Field(ge=0, le=LARGEST)
    """CO2 intensity of the country's electricity."""
    code: str
    config: str
    data: str
    """SHA-256 of the package's code, of the config, and of the data; or empty."""
    origin: str = ""
    """The model it was measured in, if this one was merged or converted from that; empty if it was
    measured here, or comes from a prepared set."""

    @property
    def images(self) -> int:
        """Images of its own kind."""
        amounts = self.work.get(self.kind)
        return amounts.images if amounts is not None else 0

    @field_validator("work")
    @classmethod
    def _check_sizes(cls, work: dict[Kind, Amounts]) -> dict[Kind, Amounts]:
        for kind, amounts in work.items():
            for name, value in amounts.model_dump().items():
                if value > LARGEST:
                    raise ValueError(f"{name} of {kind} is above {LARGEST:.0e}")
        return work


def parse_phase(line: bytes) -> tuple[Phase, list[str]]:
    """A phase, and its keys that this version does not know.

    Raises ValueError with the reason if the line is not a phase.
    """
    values = parse_object(line)
    try:
        return Phase.model_validate(values), sorted(_unknown_keys(values))
    except ValidationError as error:
        raise ValueError(first_problem(error, "the line")) from None


def _unknown_keys(values: Mapping[str, object]) -> Iterator[str]:
    known = {field.alias or name for name, field in Phase.model_fields.items()}
    yield from values.keys() - known
    work = values["work"]
    assert isinstance(work, dict)
    for kind, amounts in work.items():
        yield from (f"work.{kind}.{name}" for name in amounts.keys() - Amounts.model_fields.keys())


@cache
def code_digest() -> str:
    """SHA-256 of the names and contents of all Python files of this package."""
    root = Path(wuerstchen.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text, such as a resolved config; empty for an empty text."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
