"""Which pairs belong together, and which of them are held out."""

import hashlib
import json
from collections.abc import Sequence

from wuerstchen.data.items import Item, Split
from wuerstchen.data.report import readable


def group_of(item: Item, field: str | None) -> str:
    """The value of a side field; where there is none, what the source says, or else the key."""
    value = item.fields.get(field) if field is not None else None
    if value is None or value == "":
        return item.key if item.group is None else item.group
    return readable(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)


def assign_splits(
    named: Sequence[Split | None], groups: Sequence[str], test_fraction: float
) -> list[Split]:
    """The split of every pair.

    named       what the data itself says; where it names a test split, the rest is for training
    groups      all members of a group land on one side where the data names no test split
    test_fraction  share of the groups that is then held out, the same ones on every machine
    """
    if "test" in named:
        return [name or "train" for name in named]
    held_out = _hold_out(set(groups), test_fraction)
    return ["test" if group in held_out else "train" for group in groups]


def shuffled(indices: Sequence[int], keys: Sequence[str]) -> list[int]:
    """`indices` in the order of the hashes of their `keys`: the same on every machine."""
    order = sorted(zip(keys, indices, strict=True), key=lambda pair: (_fraction(pair[0]), pair))
    return [index for _, index in order]


def _hold_out(groups: set[str], share: float) -> set[str]:
    """Groups whose hash falls below `share`; with two groups or more, each side gets one."""
    if share == 0 or len(groups) < 2:
        return set()
    order = sorted(groups, key=lambda group: (_fraction(group), group))
    count = sum(_fraction(group) < share for group in order)
    return set(order[: min(max(count, 1), len(order) - 1)])


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone (and so is stable when data is added)."""
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) / 2**32
