"""Usable pairs of picture and captions, in two splits, every one of them proved to decode."""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

from PIL import Image
from torch import Tensor

from wuerstchen.config import DataConfig
from wuerstchen.data.images import UNREAD_SUFFIXES, PixelLimitError, decode, parse_colour
from wuerstchen.data.items import Item, Place, Split
from wuerstchen.data.report import Reason, Report
from wuerstchen.data.sources import read_items
from wuerstchen.data.splits import assign_splits, group_of, shuffled
from wuerstchen.errors import DataError

_log = logging.getLogger(__name__)

_CHUNK = 256
"""Pictures that are checked together: bounds what is decoded but not yet kept."""

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture that decodes and the captions it may be shown with."""

    key: str
    """Unique inside the data: the relative path, or the key inside its tar."""
    captions: tuple[str, ...]
    """At least one, none empty, stripped."""
    group: str
    """Value of the side field data.sample_by, or the key."""
    place: Place
    """Where the bytes of the picture are."""


@final
class Pairs:
    """The usable pairs of one split, by index, with their decoded pictures."""

    def __init__(
        self,
        split: Split,
        pairs: Sequence[Pair],
        pictures: Sequence[Tensor | None],
        config: DataConfig,
    ) -> None:
        self.split: Split = split
        self.config = config
        self._pairs = list(pairs)
        self._pictures = list(pictures)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> Pair:
        return self._pairs[i]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def image(self, i: int) -> Tensor:
        """(3, S, S) uint8 RGB of picture `i`; shared with the memory cache, so do not write to it.

        Raises DataError where a picture that was fine when the data was opened no longer is.
        """
        kept = self._pictures[i]
        if kept is not None:
            return kept
        pair = self._pairs[i]
        try:
            return decode(pair.place.read(), self.config.size, self.config.background)
        except (OSError, DataError) as error:
            raise DataError(
                f"{pair.place.path}: picture {pair.key} was fine when the data was opened, but "
                f"is not now: {error}. Leave the data in place while it is in use."
            ) from None


def open_pairs(config: DataConfig) -> tuple[Pairs, Pairs, Report]:
    """The train split, the test split, and what was found and skipped.

    Decodes every picture once to prove that it can be; the first `config.memory` GiB stay. The
    train split is in the order of the data, the test split in an order that looks random but
    depends on the keys alone.

    Raises DataError where nothing is at `config.path`, where no usable pair is in it, or where
    no pair has the field `config.sample_by`; ConfigError for an unknown background colour.
    """
    parse_colour(config.background)
    items, report = read_items(config.path)
    usable, pictures = _check_pictures(_check_captions(items, report), config, report)
    if not usable:
        raise DataError(
            f"{config.path}: expected pictures with captions ({report.kind}), found no usable "
            f"pair. {report.sentence()}"
        )
    groups = [group_of(item, config.sample_by) for item in usable]
    _check_sample_by(usable, config.sample_by)
    splits = assign_splits([item.split for item in usable], groups, config.test_share)
    pairs = [_to_pair(item, group) for item, group in zip(usable, groups, strict=True)]
    train, test = (_select(name, pairs, pictures, splits, config) for name in ("train", "test"))
    report.train, report.test = len(train), len(test)
    _log.info("%s", report.sentence())
    return train, test, report


def _check_captions(items: Sequence[Item], report: Report) -> list[Item]:
    """Items that have a picture and a caption; the others go into the report."""
    kept = []
    for item in items:
        reason = _trouble(item)
        if reason is None:
            kept.append(item)
        else:
            report.skip(reason, item.key)
    return kept


def _trouble(item: Item) -> Reason | None:
    if item.picture is None:
        # A lone JSON or a lone row without words is a leftover too, and is named as such.
        return "caption without a picture"
    if item.trouble is not None:
        return item.trouble
    if item.captions is None:
        return "picture without a caption"
    return None if item.captions else "caption is empty"


def _check_pictures(
    items: Sequence[Item], config: DataConfig, report: Report
) -> tuple[list[Item], list[Tensor | None]]:
    """Decode every picture; keep those that decode, with their pixels while there is room."""
    room = int(config.memory * 2**30) // (3 * config.size**2)  # pictures that may stay in memory
    kept: list[Item] = []
    pictures: list[Tensor | None] = []
    last_line = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        # Pillow only warns between its limit and twice its limit; both are over the limit here.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            results = pool.map(lambda item: _try_decode(item, config), chunk)
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, Tensor):
                    pictures.append(result if len(kept) < room else None)
                    kept.append(item)
                else:
                    report.skip(result, item.key)
            if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                _log.info("%d of %d pictures checked", start + len(chunk), len(items))
    return kept, pictures


def _try_decode(item: Item, config: DataConfig) -> Tensor | Reason:
    assert item.picture is not None
    try:
        data = item.picture.read()
    except OSError:
        return "file cannot be read"
    try:
        return decode(data, config.size, config.background)
    except PixelLimitError:
        return "picture over the pixel limit"
    except DataError:
        if item.picture.path.suffix.lower() in UNREAD_SUFFIXES:
            return "picture in a format that is not read"
        return "picture does not decode"


def _check_sample_by(items: Sequence[Item], name: str | None) -> None:
    known = sorted({field for item in items for field in item.fields})
    if name is not None and name not in known:
        raise DataError(
            f"data.sample_by: expected a side field of the data, found {name!r}; "
            f"the data has {', '.join(known) or 'no side fields'}."
        )


def _to_pair(item: Item, group: str) -> Pair:
    assert item.picture is not None and item.captions
    return Pair(item.key, tuple(item.captions), group, item.picture)


def _select(
    split: Split,
    pairs: Sequence[Pair],
    pictures: Sequence[Tensor | None],
    splits: Sequence[Split],
    config: DataConfig,
) -> Pairs:
    chosen = [i for i, name in enumerate(splits) if name == split]
    if split == "test":  # looks show the first few, which are of many objects only when shuffled
        chosen = shuffled(chosen, [pairs[i].key for i in chosen])
    return Pairs(split, [pairs[i] for i in chosen], [pictures[i] for i in chosen], config)
