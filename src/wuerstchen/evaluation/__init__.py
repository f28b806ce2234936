"""How good a model folder is: figures with their intervals, and grids of images."""

from wuerstchen.evaluation.evaluate import evaluate, open_pipeline, prompt_grid
from wuerstchen.evaluation.report import Evaluation

__all__ = ["Evaluation", "evaluate", "open_pipeline", "prompt_grid"]
