"""Which of the shapes that keep aspect ratios suits an image best.

N images, K shapes.
"""

from collections.abc import Sequence

import numpy as np

from wuerstchen.geometry import Shape


def nearest_bucket(widths: np.ndarray, heights: np.ndarray, shapes: Sequence[Shape]) -> np.ndarray:
    """(N,) places in `shapes` of the aspect ratios that are nearest, seen as factors."""
    own = np.log(np.asarray(widths) / np.asarray(heights))  # (N,)
    there = np.log([shape.width / shape.height for shape in shapes])  # (K,)
    nearest: np.ndarray = np.abs(own[:, None] - there[None]).argmin(axis=1)
    return nearest
