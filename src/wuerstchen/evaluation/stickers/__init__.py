"""Scores of pictures of stickers: a judge names object, style, background, count and relation.

network ─▶ features ─▶ judge;  prompts, segmentation ─▶ reading ─▶ scores;  score runs them all
"""

from wuerstchen.evaluation.stickers.score import Examiner, build_examiner, score
from wuerstchen.evaluation.stickers.scores import FILES, Scores

__all__ = ["FILES", "Examiner", "Scores", "build_examiner", "score"]
