"""Ctrl-C and SIGTERM, heard at once and obeyed after the step at hand."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts(*, visible: bool) -> Iterator[list[bool]]:
    """A list that Ctrl-C or SIGTERM fills; a second one ends the program where it is.

    visible  whether this process is the one that talks
    """
    pressed: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)
        if visible:
            print(
                "\nFinishing this step, then saving; once more leaves without saving.",
                file=sys.stderr,
            )

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
