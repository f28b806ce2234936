"""Assign pairs to groups, and groups to the train and test splits."""

import hashlib
import json
from collections.abc import Sequence

from wuerstchen.data.items import Item, Split
from wuerstchen.data.report import escape_non_utf8
from wuerstchen.errors import DataError


def group_of(item: Item, field: str | None) -> str:
    """The value of a metadata field; without one, the group that the source gives, or the key."""
    value = item.fields.get(field) if field is not None else None
    if value is None or value == "":
        return item.key if item.group is None else item.group
    return escape_non_utf8(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)


def check_balance_by(field: str | None, known: Sequence[str]) -> None:
    """Raise DataError unless data.balance_by is None or one of the fields of the data."""
    if field is not None and field not in known:
        raise DataError(
            f"data.balance_by: expected a metadata field of the data, found {field!r}; the data "
            f"has {', '.join(known) or 'no metadata fields'}."
        )


def assign_splits(
    named: Sequence[Split | None], groups: Sequence[str], test_fraction: float
) -> list[Split]:
    """The split of every pair.

    named          splits that the data names; if any is `test`, all other pairs are for training
    groups         if the data names no test split, all pairs of a group get the same split
    test_fraction  fraction of the groups to hold out, the same ones on every machine
    """
    if "test" in named:
        return [name or "train" for name in named]
    held_out = _hold_out(set(groups), test_fraction)
    return ["test" if group in held_out else "train" for group in groups]


def shuffle_by_key(keys: Sequence[str]) -> list[int]:
    """Indices of `keys` in the order of their hashes: the same on every machine."""
    return sorted(range(len(keys)), key=lambda i: (_hash(keys[i]), keys[i]))


def _hold_out(groups: set[str], fraction: float) -> set[str]:
    """Groups whose hash is below `fraction`; of two groups or more, each split gets one."""
    if fraction == 0 or len(groups) < 2:
        return set()
    order = sorted(groups, key=lambda group: (_hash(group), group))
    count = sum(_hash(group) < fraction for group in order)
    return set(order[: min(max(count, 1), len(order) - 1)])


def _hash(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, so that new data moves no old group."""
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) / 2**32
