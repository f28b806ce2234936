"""Scores of the trained model by the judge of the package, of as many images as time allows."""

from collections.abc import Callable
from pathlib import Path

from wuerstchen import Pipeline
from wuerstchen.evaluation.inputs import drawing
from wuerstchen.evaluation.stickers import Scores, build_examiner, score
from wuerstchen.evaluation.stickers.prompts import SETS

LEAST = 10
"""Images of each set, even if the time is over."""

SEED = 0
"""All runs have the same prompts, whatever their seed."""

JUDGING = 0.1
"""Seconds to compose a real image of a prompt, and to judge both; not measured: three crops of
17 ms on average, and room."""

FIXED = 45.0
"""Seconds of all else: 16 were measured, most to open the stickers for each set; and room."""


def judge(
    pipeline: Pipeline,
    stickers: Path,
    kept: Path,
    *,
    most: int,
    each: float,
    left: Callable[[], float],
) -> Scores:
    """Build the judge, then draw and judge.

    kept  file for the features of the stickers, which a run that is resumed reads
    most  images of each set of prompts
    each  seconds to draw an image
    left  seconds until the limit
    """
    examiner = build_examiner(stickers, kept, device=pipeline.device)
    count = affordable(left(), each, most)
    size = pipeline.info.size
    return score(drawing(pipeline), stickers, examiner, size=size, count=count, seed=SEED)


def affordable(left: float, each: float, most: int) -> int:
    """Images of each set that can be drawn and judged in the seconds left, at least `LEAST`."""
    count = int((left - FIXED) / (len(SETS) * (each + JUDGING)))
    return min(most, max(LEAST, count))
