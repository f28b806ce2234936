"""Agreement: Krippendorff's alpha between raters, Cohen's kappa of a rater with themselves."""

import math
from collections.abc import Sequence

import numpy as np

from wuerstchen.study.proportions import Floats, Ints


def value_counts(units: Ints, values: Ints, levels: int) -> Ints:
    """How often each value was given to each unit: (U, levels), of ratings (n,) and (n,)."""
    found = np.zeros((int(units.max()) + 1 if len(units) else 0, levels), dtype=np.int64)
    np.add.at(found, (units, values), 1)
    return found


def krippendorff_alpha(counts: Ints, distances: Floats | None = None) -> float:
    """Krippendorff's alpha of ratings; raters may have left out units (Krippendorff 2011).

    counts     (U, V) how many raters gave each of V values to each unit
    distances  (V, V) squared distances of values; by default 1 between all, the nominal scale

    1 is full agreement, 0 that of chance. NaN if no unit has two ratings or all values are equal.
    """
    paired = counts[counts.sum(1) > 1].astype(float)
    if distances is None:
        distances = 1 - np.eye(counts.shape[1])
    sizes, totals = paired.sum(1), paired.sum(0)
    # A rating is not paired with itself; that pair has no distance, so it needs no correction.
    within = np.einsum("uv,vw,uw->u", paired, distances, paired)
    observed = float((within / (sizes - 1)).sum())
    expected = float(totals @ distances @ totals)
    if expected == 0:
        return math.nan
    return 1 - (float(totals.sum()) - 1) * observed / expected


def interval_distances(values: Sequence[float]) -> Floats:
    """Squared distances of values on an interval scale, such as grades."""
    numbers = np.asarray(values, dtype=float)
    return np.asarray((numbers[:, None] - numbers[None, :]) ** 2)


def cohen_kappa(first: Ints, second: Ints, levels: int) -> float:
    """Cohen's kappa of two ratings (n,) of the same things with `levels` values (Cohen 1960).

    NaN without ratings, or if both always gave the same single value.
    """
    if not len(first):
        return math.nan
    table = np.zeros((levels, levels))
    np.add.at(table, (first, second), 1 / len(first))
    chance = float(table.sum(0) @ table.sum(1))
    if math.isclose(chance, 1.0):
        return math.nan
    return (float(np.trace(table)) - chance) / (1 - chance)
