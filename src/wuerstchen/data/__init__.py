"""Images with captions: found, checked, decoded and drawn in a seeded order.

sources ─▶ folder | table | tars ─▶ Item ─▶ open_pairs ─▶ Pairs ─▶ Batches ─▶ Batch
"""

from wuerstchen.data.loader import Batch, Batches
from wuerstchen.data.open import open_pairs
from wuerstchen.data.pair import Pair
from wuerstchen.data.pairs import Pairs
from wuerstchen.data.report import Report

__all__ = ["Batch", "Batches", "Pair", "Pairs", "Report", "open_pairs"]
