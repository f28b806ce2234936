"""Receipts of model folders, runs and prepared sets.

FOLDER/receipt.json         complete without the ledger, so that a copied model keeps it
FOLDER/receipt.html         the same for people
FOLDER/runs/RUN/receipt.*   those of the runs in a model folder
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ModelFolderError, WuerstchenError, os_errors_as
from wuerstchen.marks import make_mark, mark_of
from wuerstchen.parsing import ParseError, parse_model, read_bytes
from wuerstchen.receipts.phase import Phase, text_digest
from wuerstchen.receipts.phases import LEDGER, OPEN, append_phases, read_phases
from wuerstchen.receipts.receipt import Receipt, Tariff, make_receipt
from wuerstchen.receipts.receipt_page import write_page

RECEIPT, PAGE = "receipt.json", "receipt.html"
PREPARED = "prepared.json"
"""Every prepared set has this file (`wuerstchen.data.prepared`)."""

log = logging.getLogger(__name__)


@os_errors_as(ModelFolderError)
def open_receipt(folder: Path, tariff: Tariff) -> Receipt:
    """The current receipt of a model folder, a prepared set, or one run (`MODEL/runs/b`).

    Raises ModelFolderError if nothing was measured.
    """
    phases = _all_phases(folder)
    if not phases:
        raise ModelFolderError(
            f"{folder}: expected a model folder, a run or a prepared set with {LEDGER} or "
            f"{RECEIPT}, found neither; only work measured by `wuerstchen` has a receipt."
        )
    return make_receipt(_name(folder), phases, tariff)


def saved_tariff(folder: Path) -> Tariff:
    """The tariff of the folder's receipt; without one, no prices."""
    old = _read_receipt(folder)
    return old.tariff if old else Tariff()


def write_receipts(folder: Path, tariff: Tariff) -> Receipt | None:
    """Write both files of a folder and of its runs; returns the receipt of the folder.

    None if nothing was measured. Raises SaveError.
    """
    phases = _ledger_phases(folder)
    if not phases:
        return None
    whole = make_receipt(_name(folder), phases, tariff)
    _claim(folder)
    _write_receipt(folder, whole)
    for stage, own in _by_stage(phases).items():
        run = folder / "runs" / stage
        if run.is_dir():
            _write_receipt(run, make_receipt(_name(run), own, tariff))
    return whole


def _write_receipt(folder: Path, receipt: Receipt) -> None:
    text = receipt.model_dump_json(indent=1, by_alias=True) + "\n"
    write_file(folder / RECEIPT, text.encode())
    write_page(folder / PAGE, receipt)


def _by_stage(phases: Sequence[Phase]) -> dict[str, list[Phase]]:
    """The phases that were measured here."""
    found: dict[str, list[Phase]] = {}
    for phase in phases:
        if not phase.origin:
            found.setdefault(phase.stage, []).append(phase)
    return found


def _claim(folder: Path) -> None:
    """Mark the folder, so that a receipt of another origin is not replaced. Raises SaveError."""
    if mark_of(folder) is not None:
        return
    mark = make_mark(folder, "prepared set" if (folder / PREPARED).is_file() else "model")
    with suppress(ModelFolderError):  # an earlier version wrote both together
        if _read_receipt(folder) is not None:
            mark.adopt([folder / RECEIPT, folder / PAGE])


def update_receipts(folder: Path) -> None:
    """`write_receipts` with the saved tariff; errors are only logged."""
    try:
        write_receipts(folder, saved_tariff(folder))
    except (WuerstchenError, OSError) as error:
        log.warning("The receipt of %s could not be written: %s", folder, error)


def has_unrecorded(folder: Path) -> bool:
    """Whether the receipt of a folder lacks phases that ended, as after a kill at the end.

    Raises ModelFolderError if the ledger or the receipt cannot be read.
    """
    ended = {phase.id: phase.end for phase in _ledger_phases(folder) if phase.end != "open"}
    old = _read_receipt(folder)
    return bool(ended) and ended != {each.id: each.end for each in (old.phases if old else [])}


def adopt_models(sources: Sequence[Path], folder: Path) -> None:
    """Add the costs of the models at `sources` to the receipt of `folder`, made from them.

    Phases that are already there, and running ones, are left out; a source without a ledger and a
    receipt adds nothing. Errors are logged.
    """
    for source in sources:
        try:
            _adopt_model(source, folder)
        except (WuerstchenError, OSError) as error:
            log.warning("The receipt of %s lacks the costs of %s: %s", folder, source, error)
    update_receipts(folder)


def _adopt_model(source: Path, folder: Path) -> None:
    if source.resolve() == folder.resolve():
        return
    known = {phase.id for phase in read_phases(folder)}
    # Models may share a name, and both trained each stage from scratch: without an origin, their
    # phases would look like one model that was started again.
    origin = f"{source.resolve().name}-{text_digest(str(source.resolve()))[:8]}"
    new = [
        phase.model_copy(update={"origin": phase.origin or origin})
        for phase in _all_phases(source)
        if phase.id not in known and phase.end != "open"
    ]
    if new:
        append_phases(folder, new)


def _all_phases(folder: Path) -> list[Phase]:
    """The phases in the ledger, or else in the receipt; empty without both."""
    if phases := _ledger_phases(folder):
        return phases
    old = _read_receipt(folder)
    return old.phases if old else []


def _ledger_phases(folder: Path) -> list[Phase]:
    """The phases of a folder with a ledger, or of one run in such a folder."""
    if _has_ledger(folder):
        return read_phases(folder)
    model = folder.resolve().parent.parent
    if folder.resolve().parent.name == "runs" and _has_ledger(model):
        stage = folder.resolve().name
        return _by_stage(read_phases(model)).get(stage, [])
    return []


def _has_ledger(folder: Path) -> bool:
    return (folder / LEDGER).is_file() or any((folder / OPEN).glob("*.json"))


def _name(folder: Path) -> str:
    path, parent = folder.resolve(), folder.resolve().parent
    return f"{parent.parent.name}/{path.name}" if parent.name == "runs" else path.name


def _read_receipt(folder: Path) -> Receipt | None:
    path = folder / RECEIPT
    if not path.is_file():
        return None
    try:
        return parse_model(Receipt, read_bytes(path))
    except OSError as error:
        raise ModelFolderError(
            f"{path}: expected a readable receipt, found: {error.strerror or error}; correct its "
            "permissions."
        ) from None
    except ParseError as error:
        raise ModelFolderError(
            f"{path}: expected a receipt, found something else ({error}); delete it to have it "
            "made again from the ledger."
        ) from None
