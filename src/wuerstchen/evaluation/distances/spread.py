"""A figure of a whole set of images and, where it is a mean over parts of it, its spread."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A value and the standard deviation over the parts that it is the mean of; None: no parts."""

    value: float
    spread: float | None = None
