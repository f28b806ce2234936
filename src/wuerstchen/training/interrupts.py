"""Ctrl-C and SIGTERM, heard but not obeyed at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts() -> Iterator[list[bool]]:
    """A list that Ctrl-C or SIGTERM fills, so that the step at hand is finished first."""
    pressed: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        pressed.append(True)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
