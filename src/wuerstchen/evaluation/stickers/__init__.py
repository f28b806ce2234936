"""Scores of images of stickers: a judge names object, style, background, count and relation.

features ─▶ judge;  prompts, segmentation ─▶ reading ─▶ scores;  scoring runs them all
"""

from wuerstchen.evaluation.stickers.scores import FILES, Scores
from wuerstchen.evaluation.stickers.scoring import Draw, Examiner, build_examiner, score

__all__ = ["FILES", "Draw", "Examiner", "Scores", "build_examiner", "score"]
