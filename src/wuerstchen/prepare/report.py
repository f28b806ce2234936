"""What `wuerstchen prepare` found and did, in numbers: the file report.json."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from wuerstchen.data.prepared import SCORES
from wuerstchen.prepare.shards import Dropped

EXAMPLES = 20
"""Keys that are named for each reason."""


class Copy(BaseModel):
    """A row that was left out, and the one that stays in its place."""

    row: int
    of: int
    crosses: bool
    """Whether the data itself put one to train and the other to test."""


class Reason(BaseModel):
    """Why images were dropped."""

    count: int
    examples: list[str]


class Spread(BaseModel):
    """Quartiles and ends of a number over the kept images."""

    count: int
    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float


class Summary(BaseModel):
    source: str
    kind: str
    found: int
    kept: int
    train: int
    test: int
    dropped: dict[str, Reason]
    """By reason, the most frequent first; copies are among them."""
    copies_across_splits: int
    """Copies of held-out images among those that the data meant for training, whether they were
    dropped or stay."""
    equal_across_splits: int
    """Those of them with equal pixels that stay."""
    near_across_splits: int
    """Those that look the same and stay."""
    spreads: dict[str, Spread]
    bytes: int
    """Of the stored images."""

    @staticmethod
    def count(reasons: Iterable[str]) -> dict[str, int]:
        return dict(Counter(reasons).most_common())


class Overlap(NamedTuple):
    """Images to train with that are copies of held-out ones and stay."""

    equal: int
    near: int


EQUAL, NEAR = "copy with equal pixels", "copy that looks the same"


def summarise(
    source: str,
    kind: str,
    kept: pa.Table,
    rows: pa.Table,
    copies: Sequence[Copy],
    dropped: Sequence[Dropped],
    overlap: Overlap,
) -> Summary:
    """
    kept     the rows of the index
    rows     those that passed the filters, copies among them
    overlap  of the splits of `kept`
    """
    keys, hashes = rows.column("key").to_pylist(), rows.column("hash").to_pylist()
    named = [(each.reason, each.key) for each in dropped]
    for copy in copies:
        equal = hashes[copy.row] == hashes[copy.of]
        named.append((EQUAL if equal else NEAR, f"{keys[copy.row]} (of {keys[copy.of]})"))
    examples: dict[str, list[str]] = {}
    for reason, key in named:
        if len(known := examples.setdefault(reason, [])) < EXAMPLES:
            known.append(key)
    counts = Summary.count(reason for reason, _ in named)
    test = int(pc.sum(pc.equal(kept.column("split"), "test")).as_py() or 0)
    return Summary(
        source=source,
        kind=kind,
        found=len(rows) + len(dropped),
        kept=len(kept),
        train=len(kept) - test,
        test=test,
        dropped={
            reason: Reason(count=count, examples=examples[reason])
            for reason, count in counts.items()
        },
        copies_across_splits=sum(copy.crosses for copy in copies) + sum(overlap),
        equal_across_splits=overlap.equal,
        near_across_splits=overlap.near,
        spreads={name: _spread(values) for name, values in numbers(kept).items() if len(values)},
        bytes=int(pc.sum(kept.column("bytes")).as_py()),
    )


def numbers(kept: pa.Table) -> dict[str, np.ndarray]:
    """What is looked at image by image, by what it is."""
    width, height = (
        kept.column(f"source_{side}").to_numpy().astype(float) for side in ("width", "height")
    )
    captions = kept.column("captions").combine_chunks()
    found = {
        "width": width,
        "height": height,
        "aspect ratio": width / height,
        "captions per image": pc.list_value_length(captions).to_numpy(zero_copy_only=False),
        "characters of a caption": pc.utf8_length(captions.flatten()).to_numpy(
            zero_copy_only=False
        ),
    }
    for name in SCORES:
        found[name] = pc.drop_null(kept.column(name)).to_numpy()
    return {name: np.asarray(values, float) for name, values in found.items()}


def _spread(values: np.ndarray) -> Spread:
    least, quarter, median, three, most = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return Spread(
        count=len(values),
        least=least,
        quarter=quarter,
        median=median,
        three_quarters=three,
        most=most,
    )
