"""`wuerstchen prepare`: turn any source of images into a clean set for training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wuerstchen.cli.options import rank_and_world
from wuerstchen.errors import DataError, how_to_install
from wuerstchen.terminal import print_path, progress_console, start_log

EPILOG = "wuerstchen prepare photos prepared size=256 filters.min_side=256"


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder of images with captions, a folder with metadata.jsonl or .csv, "
            "webdataset tars ({00000..00012}.tar, *.tar), or a prepared set.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings such as size=256."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Base settings. paper: the authors' filter, 512 pixels."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Threads (default: one per core)."),
    ] = None,
) -> None:
    """Decode, filter and resize images, drop duplicates, and write shards with an index.

    Train on the result with data.path=OUT. To resume an interrupted run, repeat the command.
    OUT/report.html shows what was kept and dropped. To use several processes:
    torchrun --nproc-per-node 2 -m wuerstchen prepare IN OUT …
    """
    from wuerstchen.config import load_prepare

    config = load_prepare(preset, settings or [])
    start_log()
    rank, world = rank_and_world()
    try:
        from wuerstchen.prepare.prepare import prepare as run

        with _progress_bar(visible=rank == 0) as on_progress:
            folder = run(
                source,
                out,
                config,
                rank=rank,
                world=world,
                workers=workers,
                on_progress=on_progress,
            )
    except ModuleNotFoundError as error:
        raise DataError(
            f"`wuerstchen prepare` needs {error.name}, which is not installed; "
            f"{how_to_install('data')}."
        ) from None
    except KeyboardInterrupt:
        raise DataError(
            f"Interrupted; finished shards are kept in {out}. Run the same command to resume."
        ) from None
    if rank == 0:
        print_path(folder)


@contextmanager
def _progress_bar(*, visible: bool) -> Iterator[Callable[[int, int], None]]:
    """Count processed images and finished shards on stderr."""
    columns = (
        TextColumn("{task.fields[images]:,} images, shards"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=progress_console(), disable=not visible, redirect_stdout=False
    ) as bar:
        task = bar.add_task("", total=None, images=0, visible=False)  # until work starts
        seen = 0

        def on_progress(images: int, units: int) -> None:
            nonlocal seen
            seen += images
            bar.update(task, total=units, images=seen, advance=0 if images else 1, visible=True)

        yield on_progress
