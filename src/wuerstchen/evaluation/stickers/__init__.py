"""Scores of images of stickers: a judge names object, style, background, count and relation.

features ─▶ judge;  prompts, segmentation ─▶ reading ─▶ scores;  scoring runs them all
"""

from wuerstchen.evaluation.stickers.scores import FILES, Scores
from wuerstchen.evaluation.stickers.scoring import Examiner, build_examiner, score

__all__ = ["FILES", "Examiner", "Scores", "build_examiner", "score"]
