"""Signals that end a program: Ctrl-C, SIGTERM, and SIGHUP, which follows the loss of a terminal.

SIGHUP stays ignored if it was when the program started, as under `nohup`.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 1.0
"""Seconds within which further signals belong to the first: a launcher passes on what its processes
receive as well, and systems that end a session send several."""

GRACE = 1.0
"""Seconds in which a program without anything to save may end by itself."""

_HANGUPS: set[int] = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()
"""Windows has none."""


@contextmanager
def saving_signals(*, visible: bool) -> Iterator[list[bool]]:
    """A list that a signal appends to, so that a step can end before the program does.

    A second Ctrl-C or SIGTERM raises KeyboardInterrupt.
    visible  whether this process prints a message
    """
    received: list[bool] = []
    first = 0.0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if not received:
            received.append(True)
            first = time.monotonic()
            if visible or number in _HANGUPS:
                _tell("\nFinishing this step, then saving; press again to exit without saving.\n")
        elif number not in _HANGUPS and time.monotonic() - first > SAME:
            raise KeyboardInterrupt

    hangups = {each for each in _HANGUPS if signal.getsignal(each) != signal.SIG_IGN}
    with _handled({signal.SIGINT, signal.SIGTERM, *hangups}, handle):
        yield received


@contextmanager
def ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that the program cleans up.

    Its exit code is then that of the signal.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        _tell(f"\nEnded by {signal.Signals(number).name}.\n")
        raise KeyboardInterrupt

    numbers = {signal.SIGTERM, *_HANGUPS}
    with _handled({n for n in numbers if signal.getsignal(n) == signal.SIG_DFL}, handle):
        try:
            yield
        except SystemExit as end:
            if received and end.code == 128 + signal.SIGINT:
                sys.exit(128 + received[0])
            raise


@contextmanager
def ending_at_once() -> Iterator[None]:
    """A signal ends the process even while an operation runs; nothing may need to be saved.

    Python calls its handlers between operations, of which one of torch may take minutes. The
    system's handler writes the signal's number to a socket at once, which a thread reads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    left = threading.Event()
    watcher = threading.Thread(target=_end_at_once, args=(reader, left), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()


def _end_at_once(numbers: socket.socket, left: threading.Event) -> None:
    """End the process at a signal, unless it leaves the block in time; return at the end of it."""
    while received := numbers.recv(1):
        number = received[0]
        if number in {signal.SIGINT, signal.SIGTERM, *_HANGUPS} and not left.wait(GRACE):
            cursor = "\x1b[?25h" if os.isatty(2) else ""  # which progress bars hide
            _tell(f"{cursor}\nEnded by {signal.Signals(number).name}.\n")
            os._exit(128 + number)


@contextmanager
def _handled(numbers: set[int], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    try:
        previous = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not in the main thread, to which Python gives all signals
        previous = {}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _tell(text: str) -> None:
    """Write to stderr, past its buffer, which the signal may have interrupted in use.

    A lost terminal is replaced, so that later messages cannot end the program either.
    """
    try:
        os.write(2, text.encode())
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)
