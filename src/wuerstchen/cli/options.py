"""Shared by several verbs: arguments and their checks, launchers, output folders, progress bars."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TimeElapsedColumn,
)

from wuerstchen import marks, overlap
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.terminal import progress_console

if TYPE_CHECKING:
    from wuerstchen.evaluation.inputs import Progress as OnProgress

TrainingSource = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or a shipped config: tiny, small, paper-512, paper-1024, lora, subject."
    ),
]

CONFIG_HELP = (
    "The config.json of a network in a single file, such as a .pt of unusual width; may be "
    "repeated. One next to the file is found."
)
Configs = Annotated[list[Path] | None, typer.Option("--config", metavar="FILE", help=CONFIG_HELP)]

PROVENANCE_HELP = "Write into the PNG that a model made it (IPTC digitalSourceType)."


def tell(sentence: str) -> None:
    """Print a sentence to stderr; stdout has results alone."""
    print(printable(sentence), file=sys.stderr)


def at_least(least: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """An option callback that raises ConfigError for a number below `least`; None is accepted."""

    def check(option: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and value < least:
            raise ConfigError(f"{option.opts[0]} must be at least {least}, found {value}.")
        return value

    return check


def model_and_data(metavar: str) -> object:
    """The arguments that `split_arguments` reads."""
    return typer.Argument(
        metavar=metavar,
        help="Model folder or Hub id (default: the bundled model), and the data settings of its "
        "training config: data.path, data.balance_by, data.test_fraction.",
        default_factory=list,
        show_default=False,
    )


def number(least: int, meaning: str) -> object:
    """An option for a number from `least`."""
    return typer.Option(callback=at_least(least), metavar="N", help=meaning)


EvaluationSeed = Annotated[
    int, typer.Option(callback=at_least(0), help="For captions and noise; same seed, same figures.")
]


def rank_and_world() -> tuple[int, int]:
    """Rank and world size from the environment; 0 and 1 without a launcher."""
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ConfigError(
            "Expected environment variables RANK from 0 and a larger WORLD_SIZE, as set by "
            f"launchers, found {rank!r} and {world!r}; correct them, or unset both."
        )
    return int(rank), int(world)


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


def overwrite_option(meaning: str) -> object:
    """The option that lets an output replace what `wuerstchen` did not write there."""
    return typer.Option("--overwrite", help=meaning)


OverwriteReport = Annotated[
    bool, overwrite_option("Replace files of these names that are not from an earlier report.")
]


def make_report_folder(
    out: Path, names: Sequence[str], *, overwrite: bool, model: Path, data: str
) -> None:
    """Make the output folder before any work is done; `names` are the files to be written.

    Raises ConfigError for the folder of the model or the data, SaveError for a folder that cannot
    be written and for files that an earlier report did not write.
    """
    for name, source in (("the model", str(model)), ("data.path", data)):
        if source and overlap.is_within(out, Path(source).expanduser()):
            if overlap.is_within(Path(source).expanduser(), out):
                raise ConfigError(
                    f"--out is {out}, which is {name} itself; choose another folder for the report."
                )
    _make_folder(out)
    mark = marks.make_mark(out, "report")
    files = [out / name for name in names]
    foreign = [path for path in files if os.path.lexists(path) and not mark.wrote(path)]
    if foreign and not overwrite:
        raise SaveError(
            f"{foreign[0]} exists already, and is not from an earlier report in {out}; choose "
            "another --out, or pass --overwrite."
        )
    mark.adopt(foreign)


def _make_folder(out: Path) -> None:
    """Raises SaveError."""
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
def progress_bars(*columns: ProgressColumn, visible: bool = True) -> "Iterator[OnProgress]":
    """A progress bar on stderr for each task, with additional columns."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *columns)
    with Progress(
        "{task.description}",
        *columns,
        console=progress_console(),
        disable=not visible,
        redirect_stdout=False,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done)

        yield report
