"""Pictures with captions: found, checked, decoded and drawn in a seeded order.

sources ─▶ folder | table | tars ─▶ Item ─▶ open_pairs ─▶ Pairs ─▶ Batches ─▶ Batch
"""

from wuerstchen.data.batches import Batch, Batches
from wuerstchen.data.images import decode
from wuerstchen.data.pairs import Pair, Pairs, open_pairs
from wuerstchen.data.report import Report

__all__ = ["Batch", "Batches", "Pair", "Pairs", "Report", "decode", "open_pairs"]
