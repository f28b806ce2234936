"""From data.path to two splits of usable pairs, every one of them proved to decode."""

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from wuerstchen.config import DataConfig
from wuerstchen.data.buckets import nearest_bucket
from wuerstchen.data.images import UNREAD_SUFFIXES, PixelLimitError, decode, parse_colour
from wuerstchen.data.items import Item, Split
from wuerstchen.data.pair import Pair
from wuerstchen.data.pairs import Pairs
from wuerstchen.data.report import Reason, Report
from wuerstchen.data.sources import find_source, is_prepared
from wuerstchen.data.splits import assign_splits, group_of, shuffled
from wuerstchen.errors import DataError, how_to_install
from wuerstchen.geometry import Shape, bucket_shapes

_log = logging.getLogger(__name__)

_CHUNK = 256
"""Images that are checked together: bounds what is decoded but not yet kept."""

_SECONDS_BETWEEN_LINES = 10.0

_AS_PREPARED = ("balance_by", "test_fraction", "background")
"""Keys of the data that were decided when a set was prepared."""


class _Usable(NamedTuple):
    """An image that decodes."""

    item: Item
    bucket: int
    image: Tensor | None
    """(3, H, W) where it stays in memory."""


def open_pairs(config: DataConfig) -> tuple[Pairs, Pairs, Report]:
    """The train split, the test split, and what was found and skipped.

    A prepared set is opened as it is. Of any other source every image is decoded once to prove
    that it can be. The first `config.cache_gib` GiB of images stay in memory. The train split is in
    the order of the data, the test split in an order that looks random but depends on the keys
    alone.

    Raises DataError where nothing is at `config.path`, where no usable pair is in it, or where
    no pair has the field `config.balance_by`; ConfigError for an unknown background colour.
    """
    parse_colour(config.background)
    folder = Path(config.path).expanduser()
    if config.path and is_prepared(folder):
        return _open_prepared(folder, config)
    source = find_source(config.path)
    report = source.report
    items = source.items()
    if config.caption:
        for item in items:
            item.say(config.caption)
    usable = _check_images(_check_captions(items, report), config, report)
    if not usable:
        raise DataError(
            f"{config.path}: expected images with captions ({report.kind}), found no usable "
            f"pair. {report.sentence()}"
        )
    items = [each.item for each in usable]
    groups = [group_of(item, config.balance_by) for item in items]
    _check_sample_by(items, config.balance_by)
    splits = assign_splits([item.split for item in items], groups, config.test_fraction)
    pairs = [_to_pair(item, group) for item, group in zip(items, groups, strict=True)]
    train, test = (_select(name, pairs, usable, splits, config) for name in ("train", "test"))
    report.train, report.test = len(train), len(test)
    _log.info("%s", report.sentence())
    return train, test, report


def _open_prepared(folder: Path, config: DataConfig) -> tuple[Pairs, Pairs, Report]:
    try:
        from wuerstchen.data.prepared import open_index
    except ModuleNotFoundError as error:
        raise DataError(
            f"{folder}: a prepared set needs {error.name}, which is not installed; "
            f"{how_to_install('data')}."
        ) from None
    index, info = open_index(folder)
    _check_prepared(folder, config, info.settings)
    shapes = shapes_of(config)
    found = []
    for split in ("train", "test"):
        rows = index.only(split)
        if split == "test":
            rows = rows.taken(shuffled(range(len(rows)), rows.keys()))
        sizes = rows.sizes()
        buckets = nearest_bucket(sizes[:, 0], sizes[:, 1], shapes)
        groups = rows.groups()
        found.append(Pairs(split, rows, shapes, buckets, groups, config, info.index_sha256))
    train, test = found
    train.allow(int(config.cache_gib * 2**30))
    report = Report(str(folder), f"prepared set of {info.images} images", len(train), len(test))
    _log.info("%s", report.sentence())
    return train, test, report


def _check_prepared(folder: Path, config: DataConfig, settings: Mapping[str, object]) -> None:
    """Raise DataError for what the set cannot give any more as it was prepared otherwise."""
    if config.caption:
        raise DataError(
            f"{folder}: data.caption is {config.caption!r}, but captions of a prepared set stand "
            "in its index; name the folder that it was made of, or leave data.caption out."
        )
    size = settings.get("size")
    if isinstance(size, int) and config.size > size:
        raise DataError(
            f"{folder}: expected images for data.size={config.size}, found a set that was "
            f"prepared at size={size}; prepare the source at the larger size, or set "
            f"data.size={size}."
        )
    if settings.get("shape") == "square" and len(shapes_of(config)) > 1:
        raise DataError(
            f"{folder}: expected images with their aspect ratios for data.buckets=true, found a "
            "set that was prepared with shape=square; prepare the source with shape=area, or set "
            "data.buckets=false."
        )
    for name in _AS_PREPARED:
        found, own = getattr(config, name), settings.get(name)
        # The default cannot be told from a value that was not given, and asks for nothing.
        if found not in (own, DataConfig.model_fields[name].default) and name in settings:
            raise DataError(
                f"{folder}: expected data.{name}={own}, as the set was prepared, found {found}; "
                f"leave it out, or prepare the source with {name}={found}."
            )


def how_to_split(config: DataConfig) -> str:
    """What to do about a split without images."""
    if is_prepared(Path(config.path).expanduser()):
        return "prepare the source again with another test_fraction, such as test_fraction=0.05"
    return "add data, or change data.test_fraction"


def shapes_of(config: DataConfig) -> list[Shape]:
    """The shapes that training images have."""
    return bucket_shapes(config.size) if config.buckets else [Shape(config.size, config.size)]


def _check_captions(items: Sequence[Item], report: Report) -> list[Item]:
    """Items that have an image and a caption; the others go into the report."""
    kept = []
    for item in items:
        reason = trouble_of(item)
        if reason is None:
            kept.append(item)
        else:
            report.skip(reason, item.key)
    return kept


def trouble_of(item: Item) -> Reason | None:
    if item.image is None:
        # A lone JSON or a lone row without words is a leftover too, and is named as such.
        return "caption without an image"
    if item.trouble is not None:
        return item.trouble
    if item.captions is None:
        return "image without a caption"
    return None if item.captions else "caption is empty"


def _check_images(items: Sequence[Item], config: DataConfig, report: Report) -> list[_Usable]:
    """Decode every image; keep those that decode, with their pixels while there is room."""
    shapes = shapes_of(config)
    room = int(config.cache_gib * 2**30)
    kept: list[_Usable] = []
    last_line = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        # Pillow only warns between its limit and twice its limit; both are over the limit here.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            results = pool.map(lambda item: _try_decode(item, config, shapes), chunk)
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    report.skip(result, item.key)
                    continue
                bucket, image = result
                room -= image.nbytes
                kept.append(_Usable(item, bucket, image if room >= 0 else None))
            if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                _log.info("%d of %d images checked", start + len(chunk), len(items))
    return kept


def _try_decode(item: Item, config: DataConfig, shapes: list[Shape]) -> tuple[int, Tensor] | Reason:
    """Bucket and pixels, or why there are none."""
    assert item.image is not None
    try:
        data = item.image.read()
    except OSError:
        return "file cannot be read"
    try:
        return decode(data, shapes, config.background)
    except PixelLimitError:
        return "image over the pixel limit"
    except DataError:
        if item.image.path.suffix.lower() in UNREAD_SUFFIXES:
            return "image in a format that is not read"
        return "image does not decode"


def _check_sample_by(items: Sequence[Item], name: str | None) -> None:
    known = sorted({field for item in items for field in item.fields})
    if name is not None and name not in known:
        raise DataError(
            f"data.balance_by: expected a side field of the data, found {name!r}; "
            f"the data has {', '.join(known) or 'no side fields'}."
        )


def _to_pair(item: Item, group: str) -> Pair:
    assert item.image is not None and item.captions
    return Pair(item.key, tuple(item.captions), group, item.image)


def _select(
    split: Split,
    pairs: Sequence[Pair],
    usable: Sequence[_Usable],
    splits: Sequence[Split],
    config: DataConfig,
) -> Pairs:
    chosen = [i for i, name in enumerate(splits) if name == split]
    if split == "test":  # looks show the first few, which are of many objects only when shuffled
        chosen = shuffled(chosen, [pairs[i].key for i in chosen])
    buckets = np.array([usable[i].bucket for i in chosen], int)
    own = [pairs[i] for i in chosen]
    known: dict[str, int] = {}
    groups = np.array([known.setdefault(pair.group, len(known)) for pair in own], int)
    found = Pairs(split, own, shapes_of(config), buckets, groups, config)
    kept = [(place, usable[i].image) for place, i in enumerate(chosen)]
    found.allow(sum(image.nbytes for _, image in kept if image is not None))
    for place, image in kept:
        if image is not None:
            found.keep(place, image)
    return found
