"""Attributes work to its kind, or to failed attempts.

Work counts under its own kind if its phase ended normally, if a later phase of the same model,
stage and kind resumed from it, or as far as the phase marked it as saved. Everything else is a
failed attempt: work lost after the last checkpoint before an error or a kill, runs that were never
resumed, and stages that were started again from scratch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator

from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.phases import Phase, current_kind

FAILED: Literal["failed attempts"] = "failed attempts"

LineKind = Annotated[
    Literal["preparation", "encoding", "training", "validation", "evaluation", "failed attempts"],
    BeforeValidator(current_kind),
]


@dataclass(frozen=True)
class Entry:
    """The part of a phase that is of one kind."""

    phase_id: str
    stage: str
    kind: LineKind
    amounts: Amounts


def attribute(phases: Sequence[Phase]) -> Iterator[Entry]:
    """Split the phases of one folder, ordered by time, into entries of one kind each."""
    for index, phase in enumerate(phases):
        lost = _lost_fraction(phase, phases[index + 1 :])
        for kind, amounts in phase.work.items():
            failed, kept = amounts.split(lost)
            if lost < 1:
                yield Entry(phase.id, phase.stage, kind, kept)
            if lost > 0:
                yield Entry(phase.id, phase.stage, FAILED, failed)


def _lost_fraction(phase: Phase, later: Sequence[Phase]) -> float:
    """The fraction of a phase that is lost, 0 to 1; all images count as equally long."""
    ended_well = phase.end in ("done", "open")
    resumed = _resumed_at(phase, later)
    images = phase.work.get(phase.kind, Amounts()).images
    if phase.resumed_at is None or resumed is None:
        if ended_well or not images or phase.saved is None:
            return 0.0 if ended_well else 1.0
        return 1 - phase.saved / images
    if not images:
        return 0.0 if ended_well and resumed >= phase.resumed_at else 1.0
    return min(max(phase.resumed_at + images - resumed, 0), images) / images


def _resumed_at(phase: Phase, later: Sequence[Phase]) -> int | None:
    """The fewest images from which a later phase of its model, stage and kind resumed."""
    same = (phase.origin, phase.stage, phase.kind)
    starts = [p.resumed_at for p in later if (p.origin, p.stage, p.kind) == same]
    return min((start for start in starts if start is not None), default=None)
