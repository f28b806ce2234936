"""Scenes of stickers as training data, composed in memory whenever they are needed.

They are the scenes that `wuerstchen stickers compose` writes with its defaults.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import final, overload

import numpy as np
import torch
from torch import Tensor

from wuerstchen.config import DataConfig
from wuerstchen.data.images import nearest_bucket
from wuerstchen.data.items import Split
from wuerstchen.data.pairs import Pair, Pairs, training_shapes
from wuerstchen.data.report import Report
from wuerstchen.data.splits import check_balance_by
from wuerstchen.data.stickers.composer import Composer
from wuerstchen.data.stickers.sprites import Part, decode_all, digest_of, open_sprites
from wuerstchen.errors import DataError

HELD_OUT = 500
"""Scenes of the test split, which have only cells that are not in training."""

CACHED_PAIRS = 2**17
"""Keys and captions kept in memory: about 100 MB."""

OBJECT = "name"
"""The metadata field of a scene: the object, or the first of two."""

log = logging.getLogger(__name__)


@final
class SceneSource(Sequence[Pair]):
    """The first scenes of a composer as pairs, laid out and captioned when they are accessed."""

    def __init__(self, composer: Composer, count: int, balance_by: str | None = None) -> None:
        """balance_by: `OBJECT`, or None for groups of one scene"""
        self.composer = composer
        self._count, self._balance_by = count, balance_by
        self._pair = lru_cache(maxsize=CACHED_PAIRS)(self._caption)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._pair(index % len(self))

    def image(self, index: int) -> Tensor:
        """(3, S, S) uint8."""
        pixels = np.array(self.composer.image(index))  # (S, S, 3)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def groups(self) -> np.ndarray:
        """(N,) group numbers, counted from 0."""
        if self._balance_by is None:
            return np.arange(len(self))
        numbers: dict[str, int] = {}
        names = (self._group(index) for index in range(len(self)))
        return np.array([numbers.setdefault(name, len(numbers)) for name in names], int)

    def digest(self) -> str:
        """Of everything that the scenes depend on; independent of paths and times of files."""
        stickers = digest_of(self.composer.sprites.all)
        identity = (self.composer.settings(), len(self), stickers)
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    def _caption(self, index: int) -> Pair:
        captions = tuple(caption.text for caption in self.composer.captions(index))
        return Pair(self._key(index), captions, self._group(index), None)

    def _key(self, index: int) -> str:
        return f"{self.composer.sprites.part}/{index:08d}"

    def _group(self, index: int) -> str:
        if self._balance_by is None:
            return self._key(index)
        return self.composer.scene(index).sprites[0].name


def open_scenes(config: DataConfig) -> tuple[Pairs, Pairs, Report]:
    """`config.scenes` training scenes of the stickers in `config.path`, and `HELD_OUT` test scenes.

    Every sticker is decoded once and stays in memory, 0.2 MB each on average.

    Raises DataError if the folder is not a set of stickers with held-out cells, if a sticker does
    not decode, or for another `config.balance_by` than `OBJECT`.
    """
    folder = _find(config)
    check_balance_by(config.balance_by, [OBJECT])
    parts: dict[Split, tuple[Part, int]] = {
        "train": ("train", config.scenes),
        "test": ("test-cells", HELD_OUT),
    }
    opened = {split: open_sprites(folder, part) for split, (part, _) in parts.items()}
    for sprites in opened.values():
        decode_all(sprites)
    train, test = (
        _to_pairs(
            split,
            SceneSource(Composer(opened[split], config.size), count, config.balance_by),
            config,
        )
        for split, (_, count) in parts.items()
    )
    kind = f"scenes composed of {len(opened['train'])} stickers"
    report = Report(config.path, kind, len(train), len(test))
    log.info("%s", report.summary())
    return train, test, report


def _find(config: DataConfig) -> Path:
    """The folder; DataError if there are no tars of stickers."""
    folder = Path(os.path.expanduser(config.path))
    found = "an empty path" if not config.path else "no such folder"
    if config.path and os.path.isdir(folder):
        parts: tuple[Part, ...] = ("train", "test-cells")
        missing = [part for part in parts if not any(folder.glob(f"{part}-[0-9]*.tar"))]
        if not missing:
            return folder
        found = f"no {' and no '.join(f'{part}-00000.tar' for part in missing)} in it"
    raise DataError(
        f"data.path is {config.path!r}: expected a folder that `wuerstchen stickers build` wrote, "
        f"of whose stickers data.scenes={config.scenes} are composed, found {found}; name such a "
        "folder, or set data.scenes=0 for other data."
    )


def _to_pairs(split: Split, source: SceneSource, config: DataConfig) -> Pairs:
    sides = np.full(len(source), config.size)
    return Pairs(
        split,
        source,
        nearest_bucket(sides, sides, training_shapes(config)),
        source.groups(),
        config,
        cache_bytes=int(config.cache_gib * 2**30) if split == "train" else 0,
        compose=source.image,
        source_digest=source.digest(),
    )
