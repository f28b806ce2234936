"""What work cost: measured while it is done, added up over resumes, beside published figures.

amounts ─▶ phases: the ledger ─▶ meter: one phase, measured with energy, devices, carbon, hashes
                             └▶ sorting ─▶ receipt, units ─▶ compare ─▶ page ─▶ folder
"""

from wuerstchen.receipts.folder import (
    adopt_models,
    keep_receipts,
    kept_terms,
    open_receipt,
    write_receipts,
)
from wuerstchen.receipts.meter import Meter
from wuerstchen.receipts.phases import adopt
from wuerstchen.receipts.receipt import Receipt, Terms, add_receipts

__all__ = [
    "Meter",
    "Receipt",
    "Terms",
    "add_receipts",
    "adopt",
    "adopt_models",
    "keep_receipts",
    "kept_terms",
    "open_receipt",
    "write_receipts",
]
