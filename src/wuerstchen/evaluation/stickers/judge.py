"""Name object and style of a sticker's crop, by heads that have not seen the sticker itself.

N crops, F features, D of them kept, O objects, S styles, K folds.

Every pair of object and style is in one of `FOLDS` folds, and there are as many sets of heads, each
built without the sprites of one fold. A picture is judged by the heads that lack its prompt's pair,
so training and held-out pairs are judged alike, and what the judge finds on real pictures of the
same prompts is measured on drawings that it has not seen.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.data.stickers import STYLES, Sprite
from wuerstchen.errors import DataError

FOLDS = 5

STYLE_RIDGE, OBJECT_RIDGE = 0.05, 0.05
"""Regularisation of the style head, and of the covariance within objects (of variance 1)."""

FIRST = 5
"""Objects named per crop, best first."""

Cell = tuple[str, str]
"""Object and style."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a judge sees in a crop."""

    objects: tuple[str, ...]
    """The `FIRST` likeliest, best first."""
    style: str
    scores: Tensor
    """(O,) similarity of every object, in the order of `Judge.objects`."""

    @property
    def object(self) -> str:
        return self.objects[0]


@dataclass(frozen=True)
class _Heads:
    mean: Tensor  # (F,)
    axes: Tensor  # (F, D), of the centred features
    style: Tensor  # (D, S)
    style_means: Tensor  # (S, D)
    whiten: Tensor  # (D, D)
    prototypes: Tensor  # (O, D), of norm 1; zero for an object without a sprite

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F) to (N, O) similarities of objects and (N, S) scores of styles."""
        x = (features - self.mean) @ self.axes
        styles = x @ self.style
        centred = (x - self.style_means[styles.argmax(dim=1)]) @ self.whiten
        objects = F.normalize(centred, dim=1) @ self.prototypes.T
        return objects.masked_fill(~self.prototypes.any(dim=1), -2.0), styles


@final
class Judge:
    """Object and style heads, cross-fitted over pairs of object and style."""

    def __init__(self, sprites: Sequence[Sprite], features: Tensor) -> None:
        """
        features  (V, N, F), of V views of every sprite

        Raises DataError for fewer than two objects, or pairs all in one fold.
        """
        self.objects = tuple(sorted({sprite.name for sprite in sprites}))
        self._index = {name: index for index, name in enumerate(self.objects)}
        self._folds = _folds([(sprite.name, sprite.style) for sprite in sprites])
        folds = torch.tensor([self._folds[sprite.name, sprite.style] for sprite in sprites])
        if len(self.objects) < 2 or len(folds.unique()) < 2:
            raise DataError(
                f"A judge needs stickers of at least two objects in at least two styles, found "
                f"{len(sprites)} of {len(self.objects)}; name a larger set."
            )
        self._names = torch.tensor([self._index[sprite.name] for sprite in sprites])
        self._styles = torch.tensor([STYLES.index(sprite.style) for sprite in sprites])
        views = len(features)
        self._heads = [
            _fit(
                features[:, folds != fold].flatten(0, 1).float(),
                self._names[folds != fold].repeat(views),
                self._styles[folds != fold].repeat(views),
                len(self.objects),
            )
            for fold in range(FOLDS)
        ]

    def knows(self, cell: Cell) -> bool:
        """Whether the heads that judge this pair know its object from another style."""
        if cell not in self._folds:
            return False
        prototypes = self._heads[self._folds[cell]].prototypes
        return bool(prototypes[self._index[cell[0]]].any())

    def names(self, features: Tensor, cell: Cell) -> list[Names]:
        """What the heads that lack `cell` see in crops of (N, F) features.

        Raises DataError for a pair that no sticker has.
        """
        if cell not in self._folds:
            raise DataError(
                f"Expected a pair of object and style of the judge's stickers, found {cell}; "
                "judge with the set that the prompts are of."
            )
        objects, styles = self._heads[self._folds[cell]](features)
        first = objects.topk(min(FIRST, len(self.objects)), dim=1).indices.tolist()
        return [
            Names(tuple(self.objects[i] for i in row), STYLES[style], scores)
            for row, style, scores in zip(
                first, styles.argmax(dim=1).tolist(), objects, strict=True
            )
        ]

    def similarity(self, names: Names, name: str) -> float:
        """How well a crop fits an object."""
        return float(names.scores[self._index[name]])


def _folds(cells: Sequence[Cell]) -> dict[Cell, int]:
    """The styles of an object go to folds in turn, so that few of them share one."""
    folds: dict[Cell, int] = {}
    seen: dict[str, int] = {}
    for name, style in sorted(set(cells), key=lambda cell: (cell[0], STYLES.index(cell[1]))):
        start = int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:8], 16)
        folds[name, style] = (start + seen.get(name, 0)) % FOLDS
        seen[name] = seen.get(name, 0) + 1
    return folds


def _fit(features: Tensor, names: Tensor, styles: Tensor, objects: int) -> _Heads:
    """Heads in closed form: ridge regression of the style, whitened prototypes of the objects."""
    mean, std = features.mean(dim=0), features.std(dim=0).clamp_min(1e-4)
    x = (features - mean) / std
    axes = _axes(x)
    x = x @ axes
    n, dims = x.shape
    eye = torch.eye(dims)
    targets = F.one_hot(styles, len(STYLES)).float()
    targets = targets - targets.mean(dim=0)
    style = torch.linalg.solve(x.T @ x / n + STYLE_RIDGE * eye, x.T @ targets / n)
    style_means = _means(x, styles, len(STYLES))
    centred = x - style_means[styles]
    prototypes = _means(centred, names, objects)
    within = centred - prototypes[names]
    covariance = within.T @ within / n + OBJECT_RIDGE * eye
    whiten = torch.linalg.cholesky(torch.linalg.inv(covariance))
    return _Heads(
        mean,
        axes / std[:, None],
        style,
        style_means,
        whiten,
        F.normalize(prototypes @ whiten, dim=1),
    )


def _axes(x: Tensor) -> Tensor:
    """(N, F) to (F, D) axes of the space that the samples span; all axes if there are many."""
    n, dims = x.shape
    if n >= dims:
        return torch.eye(dims)
    axes: Tensor = torch.linalg.svd(x, full_matrices=False).Vh.T
    return axes


def _means(x: Tensor, groups: Tensor, count: int) -> Tensor:
    """(N, D) to the (count, D) means by group; zero for a group without members."""
    sums = torch.zeros(count, x.shape[1]).index_add_(0, groups, x)
    means: Tensor = sums / torch.bincount(groups, minlength=count).clamp_min(1)[:, None]
    return means
