"""Name object and style of a sticker's crop, by heads that have not seen the sticker itself.

N crops, F features, D of them kept, O objects, S styles, K folds.

Every pair of object and style is in one of `FOLDS` folds, and there are as many sets of heads, each
built without the sprites of one fold. An image is judged by the heads that lack its prompt's pair,
so training and held-out pairs are judged alike, and what the judge finds on real images of the
same prompts is measured on drawings that it has not seen.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.data.stickers import STYLES, Sprite
from wuerstchen.errors import DataError
from wuerstchen.evaluation.stickers.crop_features import split

FOLDS = 5

STYLE_RIDGE, OBJECT_RIDGE, SHAPE_RIDGE = 0.05, 0.05, 0.1
"""Of the style head, and of the covariances within objects, where features have variance 1."""

SHAPE_WEIGHT = 0.45
"""Of the similarity in shape, relative to that of the network's features."""

MIN_STD = 1e-3
"""Features that vary less count little."""

UNKNOWN = -2.0
"""Similarity of an object without a sprite: less than any cosine's."""

FIRST = 5
"""Objects named per crop, best first."""

PERSON = re.compile(r"^(?:(?:wo)?m[ae]n|person|people):?\s+(?=\w)")
"""Start of a name that says who it is: the styles do not agree on who `student` shows."""

Cell = tuple[str, str]
"""Object and style."""


def object_of(name: str) -> str:
    """What a sticker's name asks for: man, woman and person at its start are all one.

    "man student" and "woman student" are the object "student", which some styles draw as either.
    """
    return PERSON.sub("", name)


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
class _Whitened:
    """Prototypes of the objects, in a space where stickers of one object spread equally."""

    mean: Tensor  # (F,)
    axes: Tensor  # (F, D), of the centred features
    style_means: Tensor  # (S, D)
    prototypes: Tensor  # (O, D), of norm 1; zero for an object without a sprite

    def __call__(self, features: Tensor, styles: Tensor) -> Tensor:
        """(N, F) features and (N,) styles to (N, O) cosine similarities."""
        x = (features - self.mean) @ self.axes - self.style_means[styles]
        return F.normalize(x, dim=1) @ self.prototypes.T


@dataclass(frozen=True)
class _Heads:
    mean: Tensor  # (F,)
    style: Tensor  # (F, S), of the centred features
    network: _Whitened
    shape: _Whitened

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F) to (N, O) similarities of objects and (N, S) scores of styles."""
        parts = split(features)
        styles = (features - self.mean) @ self.style
        found = styles.argmax(dim=1)
        objects = self.network(parts.network, found) + SHAPE_WEIGHT * self.shape(parts.shape, found)
        return objects.masked_fill(~self.known, UNKNOWN), styles

    @property
    def known(self) -> Tensor:
        """(O,) whether an object has a sprite."""
        return self.network.prototypes.any(dim=1)


@final
class Judge:
    """Object and style heads, cross-fitted over pairs of object and style."""

    def __init__(self, sprites: Sequence[Sprite], features: Tensor) -> None:
        """
        features  (V, N, F), of V views of every sprite

        Raises DataError for fewer than two objects, or pairs all in one fold.
        """
        objects = [object_of(sprite.name) for sprite in sprites]
        self.objects = tuple(sorted(set(objects)))
        self._index = {name: index for index, name in enumerate(self.objects)}
        cells = [(name, s.style) for name, s in zip(objects, sprites, strict=True)]
        self._folds = _folds(cells)
        folds = torch.tensor([self._folds[cell] for cell in cells])
        if len(self.objects) < 2 or len(folds.unique()) < 2:
            raise DataError(
                f"A judge needs stickers of at least two objects in at least two styles, found "
                f"{len(sprites)} of {len(self.objects)}; name a larger set."
            )
        self._names = torch.tensor([self._index[name] for name in objects])
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
        cell = object_of(cell[0]), cell[1]
        if cell not in self._folds:
            return False
        return bool(self._heads[self._folds[cell]].known[self._index[cell[0]]])

    def names(self, features: Tensor, cell: Cell) -> list[Names]:
        """What the heads that lack `cell` see in crops of (N, F) features.

        Raises DataError for a pair that no sticker has.
        """
        key = object_of(cell[0]), cell[1]
        if key not in self._folds:
            raise DataError(
                f"Expected a pair of object and style of the judge's stickers, found {cell}; "
                "judge with the set that the prompts are of."
            )
        objects, styles = self._heads[self._folds[key]](features)
        first = objects.topk(min(FIRST, len(self.objects)), dim=1).indices.tolist()
        return [
            Names(tuple(self.objects[i] for i in row), STYLES[style], scores)
            for row, style, scores in zip(
                first, styles.argmax(dim=1).tolist(), objects, strict=True
            )
        ]

    def similarity(self, names: Names, name: str) -> float:
        """How well a crop fits an object."""
        return float(names.scores[self._index[object_of(name)]])


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
    parts = split(features)
    mean, std = features.mean(dim=0), features.std(dim=0).clamp_min(MIN_STD)
    x = (features - mean) / std
    x, axes = _spanned(x)
    n, dims = x.shape
    targets = F.one_hot(styles, len(STYLES)).float()
    targets = targets - targets.mean(dim=0)
    style = torch.linalg.solve(x.T @ x / n + STYLE_RIDGE * torch.eye(dims), x.T @ targets / n)
    network, shape = (
        _whiten(part, names, styles, objects, ridge)
        for part, ridge in ((parts.network, OBJECT_RIDGE), (parts.shape, SHAPE_RIDGE))
    )
    return _Heads(mean, axes @ style / std[:, None], network, shape)


def _whiten(
    features: Tensor, names: Tensor, styles: Tensor, objects: int, ridge: float
) -> _Whitened:
    """Linear discriminants: differences between stickers of one object count least."""
    mean, std = features.mean(dim=0), features.std(dim=0).clamp_min(MIN_STD)
    x = (features - mean) / std
    x, axes = _spanned(x)
    style_means = _means(x, styles, len(STYLES))
    x = x - style_means[styles]
    prototypes = _means(x, names, objects)
    within = x - prototypes[names]
    covariance = within.T @ within / len(x) + ridge * torch.eye(x.shape[1])
    whiten = torch.linalg.cholesky(torch.linalg.inv(covariance))
    return _Whitened(
        mean,
        axes @ whiten / std[:, None],
        style_means @ whiten,
        F.normalize(prototypes @ whiten, dim=1),
    )


def _spanned(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, F) to (N, D) coordinates in the space that few samples span, and its (F, D) axes."""
    n, dims = x.shape
    if n >= dims:
        return x, torch.eye(dims)
    axes: Tensor = torch.linalg.svd(x, full_matrices=False).Vh.T
    return x @ axes, axes


def _means(x: Tensor, groups: Tensor, count: int) -> Tensor:
    """(N, D) to the (count, D) means by group; zero for a group without members."""
    sums = torch.zeros(count, x.shape[1]).index_add_(0, groups, x)
    means: Tensor = sums / torch.bincount(groups, minlength=count).clamp_min(1)[:, None]
    return means
