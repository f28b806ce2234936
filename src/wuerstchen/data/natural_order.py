"""The order of names in which numbers count as numbers: 2.png comes before 10.png."""

import re


def natural_key(name: str) -> list[str | int]:
    """Key to sort names by: text and numbers in turn, text first, maybe empty."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
