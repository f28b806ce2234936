"""Which stickers are held out of training, by a rule that depends on the object and style alone.

Of the published set, a hash decides: one object in 40 is in no style in training, and of the
others one cell (a pair of object and style) in 20 is for tests, and one in 20 is in no part at all.
"""

import hashlib
from typing import Literal

from wuerstchen.data.stickers.sprites import Part

Assigned = Part | Literal["none"]

FEW_STYLES = frozenset(
    {
        "1F468-200D-1F466-200D-1F466",  # family: man, boy, boy
        "1F469-200D-1F466-200D-1F466",  # family: woman, boy, boy
        "1F469-200D-1F467-200D-1F467",  # family: woman, girl, girl
        "1F9B9",  # supervillain
        "1F9CF-200D-2640-FE0F",  # deaf woman
        "1F9D1-200D-1F9D1-200D-1F9D2",  # family: adult, adult, child
        "1F9D1-200D-1F9D2-200D-1F9D2",  # family: adult, child, child
        "1F9DC",  # merperson
        "1F9DC-200D-2642-FE0F",  # merman
        "1F9DF",  # zombie
        "1FA89",  # harp
        "1FA8F",  # shovel
        "1FAC6",  # fingerprint
        "1FACD",  # orca
    }
)
"""Objects in fewer than four styles, which are for training alone: those that the hash would hold
out. They are listed because without the 3D style the number of styles is not known."""


def part_of(code: str, prefix: str) -> Assigned:
    """The part of the object with a Unicode code in the style with a key prefix."""
    if code in FEW_STYLES:
        return "train"
    if _hash(f"object/{code}") % 40 == 0:
        return "test-objects"
    cell = _hash(f"cell/{code}/{prefix}") % 20
    return "none" if cell == 0 else "test-cells" if cell == 1 else "train"


def _hash(name: str) -> int:
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16)
