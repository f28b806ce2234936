"""Training progress on stderr: a bar on a terminal, otherwise occasional lines."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from wuerstchen.terminal import progress_console

LINE_EVERY = 30.0
"""Seconds between lines if stderr is not a terminal."""

T = TypeVar("T")

OnStep = Callable[[int, float], None]
"""(images, loss), called after every step."""


class Throughput:
    """Speed of a run, and the fraction of its time spent waiting for data."""

    def __init__(self, images: int) -> None:
        self._images, self._start, self._waited = images, time.perf_counter(), 0.0

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; measures the time spent waiting for them."""
        stream = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(stream)
            self._waited += time.perf_counter() - start
            yield batch

    def since_last(self, images: int) -> dict[str, float]:
        """Images per second and the fraction of waiting since the previous call."""
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        speed, waiting = (images - self._images) / seconds, min(self._waited / seconds, 1.0)
        self._images, self._start, self._waited = images, now, 0.0
        return {"images_per_second": speed, "waiting": waiting}


@contextmanager
def progress(stage: str, total: int, before: int, *, visible: bool) -> Iterator[OnStep]:
    """Show loss, speed and time left; stdout is reserved for results.

    total    images of the whole run
    before   images already trained on when this process started
    visible  whether this process shows anything
    """
    console = progress_console()
    started = time.monotonic()

    def speed(images: int) -> float:
        return (images - before) / max(time.monotonic() - started, 1e-9)

    if not visible:
        yield lambda images, loss: None
    elif console.is_terminal:
        with Progress(
            "stage {task.fields[stage]}",
            BarColumn(),
            TaskProgressColumn(),
            "{task.completed:.0f}/{task.total:.0f} images",
            "loss {task.fields[loss]:.4f}",
            "{task.fields[speed]:.1f} images/s",
            TimeRemainingColumn(),
            console=console,
        ) as bar:
            task = bar.add_task("", total=total, completed=before, stage=stage, loss=0.0, speed=0.0)
            yield lambda images, loss: bar.update(
                task, completed=images, loss=loss, speed=speed(images)
            )
    else:
        yield _lines(console, stage, total, speed)


def _lines(console: Console, stage: str, total: int, speed: Callable[[int], float]) -> OnStep:
    """A line after the first step, at most one per `LINE_EVERY` seconds, and one at the end."""
    due = 0.0

    def on_step(images: int, loss: float) -> None:
        nonlocal due
        if time.monotonic() < due and images < total:
            return
        due = time.monotonic() + LINE_EVERY
        rate = speed(images)
        left = timedelta(seconds=round(max(total - images, 0) / rate))
        line = f"stage {stage}: {images} of {total} images, loss {loss:.4f}, {rate:.1f} images/s"
        console.print(f"{line}, {left} left", highlight=False, soft_wrap=True)

    return on_step
