"""One usable pair: an image and the captions it may be shown with."""

from dataclasses import dataclass

from wuerstchen.data.items import Place


@dataclass(frozen=True, slots=True)
class Pair:
    """An image that decodes and the captions it may be shown with."""

    key: str
    """Unique inside the data: the relative path, or the key inside its tar."""
    captions: tuple[str, ...]
    """At least one, none empty, stripped."""
    group: str
    """Value of the side field data.balance_by, or the key."""
    place: Place
    """Where the bytes of the image are."""
