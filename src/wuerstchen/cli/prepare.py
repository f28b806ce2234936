"""`wuerstchen prepare`: from any source of images to a clean set that trainings share."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wuerstchen.cli.launcher import rank_and_world
from wuerstchen.errors import DataError, how_to_install

EPILOG = "wuerstchen prepare photos prepared size=256 filters.min_side=256"

Tell = Callable[[int, int], None]


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder of images with captions, one with metadata.jsonl or .csv, "
            "webdataset tars ({00000..00012}.tar, *.tar), or a prepared set.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings, such as size=256."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Settings to begin with. paper: the authors' filter, 512 pixels."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Threads; as many as there are cores."),
    ] = None,
) -> None:
    """Decode, filter and shrink images once, drop copies, and write shards with an index.

    data.path=OUT then trains on it. Running the same command again goes on where it stopped.
    What was kept and dropped is in OUT/report.html. To share the work among processes:
    torchrun --nproc-per-node 2 -m wuerstchen prepare IN OUT …
    """
    from wuerstchen.config import load_prepare

    config = load_prepare(preset, settings or [])
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("wuerstchen").setLevel(logging.INFO)
    rank, world = rank_and_world()
    try:
        from wuerstchen.prepare.prepare import prepare as work

        with _progress(visible=rank == 0) as tell:
            folder = work(source, out, config, rank=rank, world=world, workers=workers, tell=tell)
    except ModuleNotFoundError as error:
        raise DataError(
            f"Preparing needs {error.name}, which is not installed; {how_to_install('data')}."
        ) from None
    except KeyboardInterrupt:
        raise DataError(
            f"Interrupted; the finished shards are in {out}, run the same command to go on."
        ) from None
    if rank == 0:
        typer.echo(folder)


@contextmanager
def _progress(*, visible: bool) -> Iterator[Tell]:
    """Images looked at and shards made, on stderr."""
    columns = (
        TextColumn("{task.fields[images]:,} images, shards"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not visible, redirect_stdout=False
    ) as bar:
        task = bar.add_task("", total=None, images=0, visible=False)  # until there is work
        seen = 0

        def tell(more: int, of: int) -> None:
            nonlocal seen
            seen += more
            bar.update(task, total=of, images=seen, advance=0 if more else 1, visible=True)

        yield tell
