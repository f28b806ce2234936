"""Linear probes that read object, style and background from semantics.

N scenes, F numbers of a scene's semantics, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.studies.learn_faster.encoded import LABELS

RIDGE = 1e-3
"""Relative to the variance of a feature."""


class Probes:
    """Ridge regressions of the classes, one for each of `LABELS`."""

    def __init__(self, semantics: Tensor, labels: Tensor) -> None:
        """
        semantics  (N, D, h, w) of training scenes
        labels     (N, 3)
        """
        x = semantics.flatten(1).double()  # (N, F)
        self._mean, self._std = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
        features = self._features(semantics)
        gram = features.T @ features / len(features)
        gram += RIDGE * torch.eye(len(gram), dtype=gram.dtype)
        self._weights = [
            torch.linalg.solve(gram, features.T @ F.one_hot(column).double() / len(features))
            for column in labels.T
        ]

    def right(self, semantics: Tensor, labels: Tensor) -> dict[str, float]:
        """Share of scenes whose label is the likeliest, by name of the label."""
        features = self._features(semantics)
        return {
            name: float(((features @ weights).argmax(dim=1) == column).double().mean())
            for name, weights, column in zip(LABELS, self._weights, labels.T, strict=True)
        }

    def _features(self, semantics: Tensor) -> Tensor:
        """(N, F + 1) standardised numbers and a constant."""
        x = (semantics.flatten(1).double() - self._mean) / self._std
        return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
