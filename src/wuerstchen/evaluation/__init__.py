"""Evaluate a model folder: metrics with confidence intervals, and image grids."""

from wuerstchen.evaluation.evaluate import evaluate, prompt_grid
from wuerstchen.evaluation.inputs import open_pipeline
from wuerstchen.evaluation.report import Evaluation

__all__ = ["Evaluation", "evaluate", "open_pipeline", "prompt_grid"]
