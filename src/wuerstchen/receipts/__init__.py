"""The cost of work: measured while it runs, summed over resumes, compared with published figures.

amounts ─▶ phases (the ledger) ─▶ meter (measures one phase, with energy and carbon)
                               └▶ attribution ─▶ receipt ─▶ table, receipt_page ─▶ folder
"""

from wuerstchen.receipts.folder import (
    adopt_models,
    open_receipt,
    saved_tariff,
    update_receipts,
    write_receipts,
)
from wuerstchen.receipts.meter import Meter
from wuerstchen.receipts.phases import adopt_phases
from wuerstchen.receipts.receipt import Receipt, Tariff, add_receipts

__all__ = [
    "Meter",
    "Receipt",
    "Tariff",
    "add_receipts",
    "adopt_models",
    "adopt_phases",
    "open_receipt",
    "saved_tariff",
    "update_receipts",
    "write_receipts",
]
