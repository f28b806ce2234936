"""What `evaluate` and `diagnose` share: arguments, output folder, receipt and progress bars."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wuerstchen.errors import ConfigError, SaveError

if TYPE_CHECKING:
    from wuerstchen.evaluation.inputs import Progress


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The model, if one is named, and the settings of the data."""
    settings = [each for each in arguments if each.startswith("data.") and "=" in each]
    models = [each for each in arguments if each not in settings]
    if len(models) > 1:
        raise ConfigError(
            f"Expected at most one model and settings such as data.path=images, found "
            f"{', '.join(map(repr, models))}."
        )
    return (models[0] if models else None), settings


def make_folder(out: Path) -> None:
    """Make the output folder before any work is done.

    Raises SaveError, which names --out, where it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(
            f"--out: cannot create the folder {out} ({error.strerror}); choose another."
        ) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise SaveError(f"--out: the folder {out} is write-protected; choose another.")


@contextmanager
def metered(folder: Path) -> Iterator[None]:
    """Add the cost to the receipt of a model that was trained here; other models have none."""
    if not (folder / "runs").is_dir():
        yield
        return
    from wuerstchen.receipts import Meter, update_receipts

    with Meter(folder, stage="model", kind="evaluation"):
        yield
    update_receipts(folder)


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """A progress bar on stderr for each task."""
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

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done)

        yield report
