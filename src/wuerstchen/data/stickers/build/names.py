"""Names, keywords and groups of emoji, from emojibase (Unicode CLDR, English)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from wuerstchen.errors import DataError
from wuerstchen.parsing import first_problem

LEFT_OUT = ("component", "flags")
"""Groups without objects: hair and skin tones; and flags."""


@dataclass(frozen=True, slots=True)
class Emoji:
    """An object, whatever its style."""

    code: str
    """Unicode code points in hexadecimal, joined by hyphens."""
    name: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str

    @property
    def slug(self) -> str:
        return slug_of(self.name)


class _Entry(BaseModel):
    """An emoji in data.json."""

    model_config = ConfigDict(frozen=True)

    label: str
    hexcode: str
    tags: tuple[str, ...] = ()
    group: int = -1
    subgroup: int = -1


class _Group(BaseModel):
    key: str
    order: int


class _Messages(BaseModel):
    """The file messages.json: names of the numbered groups."""

    groups: list[_Group]
    subgroups: list[_Group]


def slug_of(name: str) -> str:
    """A name as it is written in names of files: `two-o-clock`, `1st-place-medal`."""
    return re.sub(
        r"[^a-z0-9]+", "-", name.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    ).strip("-")


def read_names(data: object, messages: object) -> Sequence[Emoji]:
    """The emoji in alphabetical order of their slugs; of two with the same slug, the last one.

    data, messages  contents of emojibase's data.json and messages.json

    Raises DataError if a field is missing.
    """
    try:
        entries = TypeAdapter(list[_Entry]).validate_python(data)
        known = _Messages.model_validate(messages)
    except ValidationError as error:
        raise DataError(
            f"emojibase-data: expected names of emoji, found an error at {first_problem(error)}."
        ) from None
    groups = {group.order: group.key for group in known.groups}
    subgroups = {group.order: group.key for group in known.subgroups}
    emoji = {e.slug: e for e in _named(entries, groups, subgroups)}
    return [emoji[slug] for slug in sorted(emoji)]


def _named(
    entries: Sequence[_Entry], groups: Mapping[int, str], subgroups: Mapping[int, str]
) -> Sequence[Emoji]:
    return [
        Emoji(e.hexcode, e.label, e.tags, groups[e.group], subgroups.get(e.subgroup, ""))
        for e in entries
        if e.group in groups and groups[e.group] not in LEFT_OUT
    ]
