"""Handle Ctrl-C and SIGTERM at the end of the current step."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts(*, visible: bool) -> Iterator[list[bool]]:
    """A list that Ctrl-C or SIGTERM appends to; a second signal raises KeyboardInterrupt.

    visible  whether this process prints a message
    """
    received: list[bool] = []

    def handle(_number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(True)
        message = "\nFinishing this step, then saving; press again to exit without saving."
        if visible:
            print(message, file=sys.stderr)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
