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
from wuerstchen.receipts.phase import Phase, current_kind

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
    """Split the phases of one folder, in the order of its ledger, into entries of one kind each."""
    for phase, resumed in zip(phases, _resumptions(phases), strict=True):
        lost = _lost_fraction(phase, resumed)
        for kind, amounts in phase.work.items():
            failed, kept = amounts.split(lost)
            if lost < 1:
                yield Entry(phase.id, phase.stage, kind, kept)
            if lost > 0:
                yield Entry(phase.id, phase.stage, FAILED, failed)


def _resumptions(phases: Sequence[Phase]) -> list[int | None]:
    """For each phase, the fewest images from which a later one like it resumed."""
    found: list[int | None] = []
    fewest: dict[tuple[str, str, str], int] = {}
    for phase in reversed(phases):
        same = (phase.origin, phase.stage, phase.kind)
        found.append(fewest.get(same))
        if phase.resumed_at is not None:
            fewest[same] = min(phase.resumed_at, fewest.get(same, phase.resumed_at))
    return found[::-1]


def _lost_fraction(phase: Phase, resumed: int | None) -> float:
    """The fraction of a phase that is lost, 0 to 1; all images count as equally long.

    resumed  images from which a later phase resumed; None if none did
    """
    images, saved = phase.images, phase.saved
    ended_well = phase.end in ("done", "open") or (saved is not None and saved >= images)
    if phase.resumed_at is None or resumed is None:
        if ended_well or not images or saved is None:
            return 0.0 if ended_well else 1.0
        return 1 - saved / images
    if not images:
        return 0.0 if ended_well and resumed >= phase.resumed_at else 1.0
    return min(max(phase.resumed_at + images - resumed, 0), images) / images
