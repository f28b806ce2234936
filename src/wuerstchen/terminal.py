"""What a command prints: text on stdout and stderr is escaped, progress bars are not.

Every message of a command goes through one of these functions. `guarded` also replaces the streams
themselves, so that what other packages print is escaped too.
"""

import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from wuerstchen.display import printable, printable_lines
from wuerstchen.errors import SaveError


@contextmanager
def guarded() -> Iterator[None]:
    """Escape everything that is printed in this context, whoever prints it.

    Raises SaveError if stdout cannot be written. What stderr cannot take is dropped: a terminal
    that was closed does not end a training.
    """
    for descriptor in range(3):  # or a file that is opened later takes the place of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stdout(stdout), _Stderr(cast(TextIO, _Lossy(stderr)))
    try:
        yield
        sys.stdout.flush()
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        sys.stdout, sys.stderr = stdout, stderr


def warn(sentence: str) -> None:
    """Print a warning on one line of stderr."""
    print("Warning:", printable(sentence), file=sys.stderr)


def print_path(path: str | os.PathLike[str]) -> None:
    """Print the path of a result: on a terminal escaped, for a program as it is."""
    stream = sys.stdout
    if not isinstance(stream, _Stdout) or stream.isatty():
        print(printable(path), flush=True)
    else:
        stream.write_bytes(os.fsencode(path) + b"\n")


def start_log() -> None:
    """Log to stderr: a line per message, from this package also what is only informative."""
    handler = _Handler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("wuerstchen").setLevel(logging.INFO)


def progress_console() -> Console:
    """A console on stderr for progress bars, which may move the cursor; their text may not."""
    file: TextIO = sys.stderr
    while (inner := getattr(file, "rich_proxied_file", None)) is not None:
        file = inner
    return _Console(file=file if isinstance(file, _Lossy) else cast(TextIO, _Lossy(file)))


class _Console(Console):
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


class _Lossy(io.TextIOBase):
    """A stream that drops what cannot be written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # where the descriptor was exchanged, it cannot be flushed
                stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._stream is not None:
            with suppress(OSError, ValueError):  # ValueError: closed
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        return 2 if self._stream is None else self._stream.fileno()

    def writable(self) -> bool:
        return True


class _Stderr(_Lossy):
    """The same, with escapes."""

    @property
    def rich_proxied_file(self) -> TextIO | None:
        """Where rich writes its own escape sequences."""
        return self._stream

    def write(self, text: str) -> int:
        super().write(printable_lines(text))
        return len(text)


class _Stdout(io.TextIOBase):
    """Standard output with escapes; None is one that was closed before the start."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # where the descriptor was exchanged, it cannot be flushed
                stream.reconfigure(errors="backslashreplace")

    @property
    def rich_proxied_file(self) -> TextIO | None:
        """Where rich writes the help, with its own escape sequences."""
        return self._stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if shown := printable_lines(text):  # click probes a stream by writing nothing
            with self._explained() as stream:
                stream.write(shown)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write `data` as it is."""
        with self._explained() as stream:
            stream.flush()
            if isinstance(stream, io.TextIOWrapper):
                stream.buffer.write(data)
            else:
                stream.write(data.decode("utf-8", "backslashreplace"))
            stream.flush()

    def flush(self) -> None:
        if self._stream is not None:
            with self._explained() as stream:
                stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        return 1 if self._stream is None else self._stream.fileno()

    def writable(self) -> bool:
        return True

    @contextmanager
    def _explained(self) -> Iterator[TextIO]:
        try:
            if self._stream is None:
                raise OSError("it is closed")
            yield self._stream
        except OSError as error:
            self._discard()
            if isinstance(error, BrokenPipeError):  # its reader has read enough
                raise
            raise SaveError(
                f"stdout could not be written ({error.strerror or error}); the files of this "
                "command are complete. Direct stdout to a file or program that takes it."
            ) from None

    def _discard(self) -> None:
        """What is left in the buffer would fail again when Python ends."""
        if isinstance(self._stream, io.TextIOWrapper):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class _Handler(logging.Handler):
    """Writes to what is stderr now: a progress bar takes its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        return printable(record.getMessage())
