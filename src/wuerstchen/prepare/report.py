"""Summary of `wuerstchen prepare`: what was found, kept and dropped, as the file report.json."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from wuerstchen.data.prepared import SCORES
from wuerstchen.prepare.duplicates import Duplicate, Overlap
from wuerstchen.prepare.parts import DroppedItem

_EXAMPLES = 20
"""Keys listed for each reason."""


class DropReason(BaseModel):
    """How many images there are for one reason."""

    count: int
    examples: list[str]


class Distribution(BaseModel):
    """Quartiles and extremes of a number over the kept images."""

    count: int
    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float


class Summary(BaseModel):
    """The file report.json."""

    source: str
    kind: str
    found: int
    kept: int
    train: int
    test: int
    dropped: dict[str, DropReason]
    """By reason, most frequent first, including duplicates."""
    copies_across_splits: int
    """Duplicates of held-out images in the train split of the source, dropped or kept."""
    equal_across_splits: int
    """Those of them that are kept and have equal pixels."""
    near_across_splits: int
    """Those of them that are kept and look the same."""
    ignored: dict[str, DropReason] = {}
    """What is not used of kept images, such as an EXIF orientation that does not exist."""
    left_out: dict[str, int] = {}
    """Files that are no data: hidden ones, those of the system by name, others by suffix."""
    spreads: dict[str, Distribution]
    bytes: int
    """Of the stored images."""


def summarise(
    source: str,
    kind: str,
    kept: pa.Table,
    rows: pa.Table,
    duplicates: Sequence[Duplicate],
    dropped: Sequence[DroppedItem],
    overlap: Overlap,
    ignored: Mapping[str, Sequence[str]],
    left_out: Mapping[str, int],
) -> Summary:
    """`kept`: rows of the index; `rows`: all that passed the filters, including duplicates."""
    keys, hashes = rows.column("key").to_pylist(), rows.column("hash").to_pylist()
    keys_of: defaultdict[str, list[str]] = defaultdict(list)
    for item in dropped:
        keys_of[item.reason].append(item.key)
    for row, original, _ in duplicates:
        equal = hashes[row] == hashes[original]
        reason = "duplicate with equal pixels" if equal else "near duplicate"
        keys_of[reason].append(f"{keys[row]} (of {keys[original]})")
    test = int(pc.sum(pc.equal(kept.column("split"), "test")).as_py() or 0)
    return Summary(
        source=source,
        kind=kind,
        found=len(rows) + len(dropped),
        kept=len(kept),
        train=len(kept) - test,
        test=test,
        dropped=_most_frequent_first(keys_of),
        ignored=_most_frequent_first(ignored),
        left_out=dict(left_out),
        copies_across_splits=sum(each.across_splits for each in duplicates) + sum(overlap),
        equal_across_splits=overlap.equal,
        near_across_splits=overlap.near,
        spreads={name: _distribution(x) for name, x in measurements(kept).items() if len(x)},
        bytes=int(pc.sum(kept.column("bytes")).as_py()),
    )


def _most_frequent_first(keys_of: Mapping[str, Sequence[str]]) -> dict[str, DropReason]:
    return {
        reason: DropReason(count=len(found), examples=list(found[:_EXAMPLES]))
        for reason, found in sorted(keys_of.items(), key=lambda each: -len(each[1]))
    }


def measurements(kept: pa.Table) -> dict[str, np.ndarray]:
    """Sizes, captions and scores of all images, by name."""
    width, height = kept.column("source_width"), kept.column("source_height")
    captions = kept.column("captions").combine_chunks()
    found = {
        "width": width,
        "height": height,
        "aspect ratio": pc.divide(width.cast("float64"), height.cast("float64")),
        "captions per image": pc.list_value_length(captions),
        "characters of a caption": pc.utf8_length(captions.flatten()),
        **{name: pc.drop_null(kept.column(name)) for name in SCORES},
    }
    return {name: np.asarray(values, float) for name, values in found.items()}


def _distribution(values: np.ndarray) -> Distribution:
    names = ("least", "quarter", "median", "three_quarters", "most")
    quantiles = zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True)
    return Distribution.model_validate({"count": len(values), **dict(quantiles)})
