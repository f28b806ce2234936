"""The receipts that lie in folders.

FOLDER/receipt.json          all of it, also without the ledger: a model that is passed on keeps it
FOLDER/receipt.html          the same for people
FOLDER/runs/STEP/receipt.*   those of the runs, in a model folder
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ModelFolderError, WuerstchenError
from wuerstchen.receipts.hashes import text_digest
from wuerstchen.receipts.phases import LEDGER, OPEN, Phase, append_phases, read_phases
from wuerstchen.receipts.receipt import Receipt, Terms, make_receipt
from wuerstchen.receipts.receipt_page import write_page

RECEIPT = "receipt.json"

log = logging.getLogger(__name__)


def open_receipt(folder: Path, terms: Terms) -> Receipt:
    """The receipt of a model folder, a prepared set, or one run (`MODEL/runs/b`), as of now.

    Raises ModelFolderError where nothing was ever measured.
    """
    phases = _phases_of(folder)
    if not phases and (old := _read_receipt(folder)):
        phases = old.phases
    if not phases:
        raise ModelFolderError(
            f"{folder}: expected a model folder, a run or a prepared set with {LEDGER} or "
            f"{RECEIPT}, found neither; only what `wuerstchen` has measured has a receipt."
        )
    return make_receipt(_name(folder), phases, terms)


def kept_terms(folder: Path) -> Terms:
    """The terms of the receipt that lies there, or those without a tariff."""
    old = _read_receipt(folder)
    return old.terms if old else Terms()


def write_receipts(folder: Path, terms: Terms) -> Receipt | None:
    """Write both files of a folder and of its runs; returns the receipt of the folder.

    None where nothing was measured. Raises SaveError where it cannot be written.
    """
    if not _phases_of(folder):
        return None
    whole = open_receipt(folder, terms)
    own = {phase.stage for phase in whole.phases if not phase.origin}
    runs = [folder / "runs" / stage for stage in sorted(own)]
    for place in (folder, *(run for run in runs if run.is_dir())):
        receipt = whole if place == folder else open_receipt(place, whole.terms)
        write_file(place / RECEIPT, (receipt.model_dump_json(indent=1) + "\n").encode())
        write_page(place / "receipt.html", receipt)
    return whole


def keep_receipts(folder: Path) -> None:
    """`write_receipts` by the terms that lie there; no work fails for its receipt."""
    try:
        write_receipts(folder, kept_terms(folder))
    except (WuerstchenError, OSError) as error:
        log.warning("The receipt of %s could not be written: %s", folder, error)


def adopt_models(sources: Sequence[Path], folder: Path) -> None:
    """What the models at `sources` cost goes into the receipts of the one made of them in `folder`.

    Phases that are there already are not taken twice, those under way not at all; a source without
    a ledger and a receipt adds nothing. No work fails for its receipt.
    """
    for source in sources:
        try:
            _adopt_model(source, folder)
        except (WuerstchenError, OSError) as error:
            log.warning("The receipt of %s lacks what %s cost: %s", folder, source, error)
    keep_receipts(folder)


def _adopt_model(source: Path, folder: Path) -> None:
    if source.resolve() == folder.resolve():
        return
    phases = _phases_of(source)
    if not phases and (old := _read_receipt(source)):
        phases = old.phases
    known = {phase.id for phase in read_phases(folder)}
    # Two models may have one name; and both train a stage from its start, which in one ledger looks
    # like one model that was begun anew.
    origin = f"{source.resolve().name}-{text_digest(str(source.resolve()))[:8]}"
    new = [
        phase.model_copy(update={"origin": phase.origin or origin})
        for phase in phases
        if phase.id not in known and phase.end != "open"
    ]
    if new:
        append_phases(folder, new)


def _phases_of(folder: Path) -> list[Phase]:
    """Of a folder with a ledger, or of one run of such a folder."""
    if _has_ledger(folder):
        return read_phases(folder)
    model = folder.resolve().parent.parent
    if folder.resolve().parent.name == "runs" and _has_ledger(model):
        stage = folder.resolve().name
        return [each for each in read_phases(model) if each.stage == stage and not each.origin]
    return []


def _has_ledger(folder: Path) -> bool:
    return (folder / LEDGER).is_file() or any((folder / OPEN).glob("*.json"))


def _name(folder: Path) -> str:
    path = folder.resolve()
    of_run = path.parent.name == "runs"
    return f"{path.parent.parent.name}/{path.name}" if of_run else path.name


def _read_receipt(folder: Path) -> Receipt | None:
    path = folder / RECEIPT
    if not path.is_file():
        return None
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise ModelFolderError(
            f"{path}: expected a receipt, found something else at {where}; delete it, it is made "
            "again from the ledger."
        ) from None
