"""What `evaluate` and `diagnose` share: words, the folder they write to, receipt, and bar."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wuerstchen.errors import ConfigError, SaveError

if TYPE_CHECKING:
    from wuerstchen.evaluation.batching import Progress


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The model, if one is named, and the settings of the data."""
    settings = [word for word in words if word.startswith("data.") and "=" in word]
    models = [word for word in words if word not in settings]
    if len(models) > 1:
        raise ConfigError(
            f"Expected at most one model and words such as data.path=images, found "
            f"{', '.join(map(repr, models))}."
        )
    return (models[0] if models else None), settings


def make_folder(out: Path) -> None:
    """Make the folder now: after minutes of work would be late to learn that it cannot be.

    Raises SaveError, which names --out, where it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(
            f"--out: the folder {out} could not be made ({error.strerror}); choose another."
        ) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise SaveError(f"--out: the folder {out} is write-protected; choose another.")


@contextmanager
def metered(folder: Path) -> Iterator[None]:
    """What is measured counts in the receipt of a model that was trained here; others have none."""
    if not (folder / "runs").is_dir():
        yield
        return
    from wuerstchen.receipts import Meter, update_receipts

    with Meter(folder, stage="model", kind="evaluation"):
        yield
    update_receipts(folder)


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """A bar on stderr for everything that is measured."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield report
