"""Images with captions: found, checked, decoded and sampled in a seeded order.

sources ─▶ folder | tars ─▶ Item ─▶ open_pairs ─▶ Pairs ─▶ Sampler ─▶ BatchLoader ─▶ Batch
"""

from wuerstchen.data.loader import Batch, BatchLoader
from wuerstchen.data.open import open_pairs
from wuerstchen.data.pairs import Pair, Pairs
from wuerstchen.data.report import Report

__all__ = ["Batch", "BatchLoader", "Pair", "Pairs", "Report", "open_pairs"]
