"""The cost of work: measured while it runs, summed over resumes, compared with published figures.

amounts ─▶ phases (the ledger) ─▶ meter (measures one phase, with energy and carbon)
                               └▶ attribution ─▶ receipt ─▶ table, receipt_page ─▶ folder
"""

from wuerstchen.receipts.folder import adopt_models as adopt_models
from wuerstchen.receipts.folder import open_receipt as open_receipt
from wuerstchen.receipts.folder import saved_tariff as saved_tariff
from wuerstchen.receipts.folder import update_receipts as update_receipts
from wuerstchen.receipts.folder import write_receipts as write_receipts
from wuerstchen.receipts.meter import Meter as Meter
from wuerstchen.receipts.phases import adopt_phases as adopt_phases
from wuerstchen.receipts.receipt import Receipt as Receipt
from wuerstchen.receipts.receipt import Tariff as Tariff
from wuerstchen.receipts.receipt import add_receipts as add_receipts
