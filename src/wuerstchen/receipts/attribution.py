"""Which work is in the model and which was a failed try.

Work counts where its phase ended well, or where a later phase of the same stage and kind, and of
the same model where several were merged, went on from it, or as far as it says that its work stands
on the disk. All else is a failed try: what came after the last checkpoint before an error or a
kill, what was never gone on with, and all of a stage that was begun anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.phases import Kind, Phase

FAILED: Literal["failed tries"] = "failed tries"

Word = Literal["preparation", "encoding", "training", "look", "evaluation", "failed tries"]


@dataclass(frozen=True)
class Piece:
    """A part of a phase that is of one kind."""

    phase: str
    """Its id."""
    stage: str
    kind: Word
    amounts: Amounts


def pieces(phases: Sequence[Phase]) -> Iterator[Piece]:
    """The phases of one folder, the earliest first, cut into what counts as what."""
    for index, phase in enumerate(phases):
        share = _lost(phase, phases[index + 1 :])
        for kind, amounts in phase.work.items():
            failed, kept = amounts.split(share)
            if share < 1:
                yield Piece(phase.id, phase.stage, kind, kept)
            if share > 0:
                yield Piece(phase.id, phase.stage, FAILED, failed)


def _lost(phase: Phase, later: Sequence[Phase]) -> float:
    """The share of a phase that is lost, 0 to 1, images taken as equally long."""
    ended_well = phase.end in ("done", "open")
    resumed = _resumed(phase, later)
    images = phase.work.get(phase.kind, Amounts()).images
    if phase.at is None or resumed is None:
        if ended_well or not images or phase.standing is None:
            return 0.0 if ended_well else 1.0
        return 1 - phase.standing / images
    if not images:
        return 0.0 if ended_well and resumed >= phase.at else 1.0
    return min(max(phase.at + images - resumed, 0), images) / images


def _resumed(phase: Phase, later: Sequence[Phase]) -> int | None:
    """The fewest images from which a later phase of its model, stage and kind went on."""
    found = [other.at for other in later if _work(other) == _work(phase)]
    return min((at for at in found if at is not None), default=None)


def _work(phase: Phase) -> tuple[str, str, Kind]:
    return phase.origin, phase.stage, phase.kind
