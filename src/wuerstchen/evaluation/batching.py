"""Which images are measured, how many at a time, and who hears how far it is."""

from collections.abc import Callable, Iterator

Progress = Callable[[str, int, int], None]
"""(what is measured, images done, images in all), told at the start and after each batch."""

BATCH, BATCH_SIDE = 20, 256
"""Images at a time up to this side; fewer of larger ones, so that memory stays the same."""


def silent(what: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def batches(count: int, side: int) -> Iterator[tuple[int, int]]:
    """Starts and stops that cut `count` images of side x side pixels into batches."""
    size = max(1, min(BATCH, BATCH * BATCH_SIDE**2 // side**2))
    for start in range(0, count, size):
        yield start, min(start + size, count)


def evenly(total: int, wanted: int) -> list[int]:
    """Up to `wanted` of `total` indices, evenly spaced."""
    wanted = min(wanted, total)
    return [i * total // wanted for i in range(wanted)]
