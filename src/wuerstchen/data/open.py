"""Open the train and test splits of a source; every pair in them is known to be usable."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from wuerstchen.config import DataConfig
from wuerstchen.data.colours import parse_colour
from wuerstchen.data.file_kinds import UNSUPPORTED_SUFFIXES
from wuerstchen.data.images import (
    FormatError,
    PixelLimitError,
    fit,
    nearest_bucket,
    open_image,
    pillow_warnings,
)
from wuerstchen.data.items import DamagedFileError, FileTooLargeError, Item, Split
from wuerstchen.data.pairs import Pair, Pairs, training_shapes
from wuerstchen.data.png_metadata import MetadataLimitError
from wuerstchen.data.report import Note, Reason, Report
from wuerstchen.data.sources import find_source, is_prepared
from wuerstchen.data.splits import assign_splits, check_balance_by, group_of, shuffle_by_key
from wuerstchen.data.stickers.source import open_scenes
from wuerstchen.errors import DataError, how_to_install
from wuerstchen.geometry import Shape

_log = logging.getLogger(__name__)

_CHUNK = 256
"""Images that are checked together: limits how many are decoded but not yet stored."""

_LOG_INTERVAL = 10.0
"""Seconds."""

_FIXED_BY_PREPARE = ("balance_by", "test_fraction", "background", "caption_per_line")
"""Keys of the data that cannot be changed once a set is prepared."""


class _Decoded(NamedTuple):
    """An image of a training shape."""

    bucket: int
    image: Tensor
    """(3, H, W) uint8."""
    notes: tuple[Note, ...]


class _Usable(NamedTuple):
    """An item whose image decodes."""

    item: Item
    pair: Pair
    bucket: int
    image: Tensor | None
    """(3, H, W); None if it does not fit into the cache."""


def open_pairs(config: DataConfig) -> tuple[Pairs, Pairs, Report]:
    """The train split, the test split, and a report of what was found and skipped.

    Scenes of stickers are composed when they are accessed (`data.stickers.source`). A prepared set
    is opened without decoding. Of any other source every image is decoded once to
    check it, and the first `config.cache_gib` GiB of images stay in memory. The train split keeps
    the order of the data; the test split is shuffled by its keys.

    Raises DataError if nothing is at `config.path`, if it has no usable pair, or if no pair has the
    metadata field `config.balance_by`; ConfigError for an unknown background colour.
    """
    parse_colour(config.background)
    if config.scenes:
        return open_scenes(config)
    folder = Path(os.path.expanduser(config.path))
    if config.path and is_prepared(folder):
        return _open_prepared(folder, config)
    source = find_source(config.path)
    report, items = source.report, source.items(caption_per_line=config.caption_per_line)
    if config.caption:
        for item in items:
            item.override_caption(config.caption)
    usable = _check_images(_check_captions(items, report), config, report)
    if not usable:
        raise DataError(
            f"{config.path}: expected images with captions ({report.kind}), found no usable "
            f"pair. {report.summary()}"
        )
    check_balance_by(config.balance_by, sorted({f for each in usable for f in each.item.fields}))
    named, groups = [each.item.split for each in usable], [each.pair.group for each in usable]
    splits = assign_splits(named, groups, config.test_fraction)
    train, test = (
        _to_pairs(name, [usable[i] for i, split in enumerate(splits) if split == name], config)
        for name in ("train", "test")
    )
    report.train, report.test = len(train), len(test)
    _log.info("%s", report.summary())
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
    _check_settings(folder, config, info.settings)
    splits = []
    for split in ("train", "test"):
        rows = index.of_split(split)
        if split == "test":
            rows = rows.select(shuffle_by_key(rows.keys()))
        splits.append(
            Pairs(
                split,
                rows,
                nearest_bucket(*rows.sizes(), training_shapes(config)),
                rows.groups(),
                config,
                cache_bytes=int(config.cache_gib * 2**30) if split == "train" else 0,
                source_digest=info.index_sha256,
            )
        )
    train, test = splits
    report = Report(str(folder), f"prepared set of {info.images} images", len(train), len(test))
    _log.info("%s", report.summary())
    return train, test, report


def _check_settings(folder: Path, config: DataConfig, settings: Mapping[str, object]) -> None:
    """Raise DataError if the set was prepared with settings that do not fit `config`."""
    if config.caption:
        raise DataError(
            f"{folder}: data.caption is {config.caption!r}, but the captions of a prepared set are "
            "in its index; set data.path to the source of the set, or remove data.caption."
        )
    size = settings.get("size")
    if isinstance(size, int) and config.size > size:
        raise DataError(
            f"{folder}: expected images for data.size={config.size}, found a set that was prepared "
            f"at size={size}; prepare the source at the larger size, or set data.size={size}."
        )
    if settings.get("shape") == "square" and len(training_shapes(config)) > 1:
        raise DataError(
            f"{folder}: expected all aspect ratios for data.buckets=true, found a set with "
            "shape=square; prepare the source with shape=area, or set data.buckets=false."
        )
    for name in _FIXED_BY_PREPARE:
        found, prepared = getattr(config, name), settings.get(name)
        # The default cannot be distinguished from a value that is not given, so it is accepted.
        if found not in (prepared, DataConfig.model_fields[name].default) and name in settings:
            raise DataError(
                f"{folder}: expected data.{name}={prepared}, as the set was prepared, found "
                f"{found}; remove data.{name}, or prepare the source with {name}={found}."
            )


def empty_split_advice(config: DataConfig) -> str:
    """What to do if a split has no images."""
    if is_prepared(Path(os.path.expanduser(config.path))):
        return "prepare the source again with another test_fraction, such as test_fraction=0.05"
    return "add data, or change data.test_fraction"


def _check_captions(items: Sequence[Item], report: Report) -> list[Item]:
    """Items with an image and a caption; the others are added to the report."""
    problems = [item_problem(item) for item in items]
    for item, problem in zip(items, problems, strict=True):
        if problem is not None:
            report.skip(problem, item.key)
    return [item for item, problem in zip(items, problems, strict=True) if problem is None]


def item_problem(item: Item) -> Reason | None:
    """Why an item is not a pair, as far as that is known without decoding its image."""
    if item.image is None:
        # Also for a JSON file or table row that has neither an image nor captions.
        return "caption without an image"
    if item.problem is not None:
        return item.problem
    if item.captions is None:
        return "image without a caption"
    return None if item.captions else "caption is empty"


def _check_images(items: Sequence[Item], config: DataConfig, report: Report) -> list[_Usable]:
    """Decode every image; keep the items that decode, with their pixels while there is room."""
    shapes = training_shapes(config)
    free_bytes = int(config.cache_gib * 2**30)
    kept: list[_Usable] = []
    last_log = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool, pillow_warnings():
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            results = pool.map(lambda item: _try_decode(item, config, shapes), chunk)
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    report.skip(result, item.key)
                    continue
                bucket, image, notes = result
                for note in notes:
                    report.ignore(note, item.key)
                free_bytes -= image.nbytes
                assert item.image is not None and item.captions
                group = group_of(item, config.balance_by)
                pair = Pair(item.key, tuple(item.captions), group, item.image)
                kept.append(_Usable(item, pair, bucket, image if free_bytes >= 0 else None))
            if time.monotonic() - last_log > _LOG_INTERVAL:
                last_log = time.monotonic()
                _log.info("%d of %d images checked", start + len(chunk), len(items))
    return kept


def _try_decode(item: Item, config: DataConfig, shapes: list[Shape]) -> _Decoded | Reason:
    assert item.image is not None
    try:
        opened = open_image(item.image.read(), max(map(max, shapes)), config.background)
        return _Decoded(*fit(opened, shapes), opened.notes)
    except (OSError, DataError) as error:
        return decoding_problem(error, item)


def decoding_problem(error: OSError | DataError, item: Item) -> Reason:
    """Why reading and decoding the image of an item failed."""
    match error:
        case OSError() | DamagedFileError():
            return "file cannot be read"
        case FormatError():
            return "image format is not supported"
        case PixelLimitError():
            return "image over the pixel limit"
        case MetadataLimitError():
            return "text beside the pixels over the size limit"
        case FileTooLargeError():
            return "file over the size limit"
    assert item.image is not None
    if item.image.path.suffix.lower() in UNSUPPORTED_SUFFIXES:
        return "image format is not supported"
    return "image does not decode"


def _to_pairs(split: Split, usable: Sequence[_Usable], config: DataConfig) -> Pairs:
    if split == "test":  # validation shows the first few, which should not be of one object
        usable = [usable[i] for i in shuffle_by_key([each.pair.key for each in usable])]
    numbers: dict[str, int] = {}
    return Pairs(
        split,
        [each.pair for each in usable],
        np.array([each.bucket for each in usable], int),
        np.array([numbers.setdefault(each.pair.group, len(numbers)) for each in usable], int),
        config,
        cache={i: each.image for i, each in enumerate(usable) if each.image is not None},
    )
