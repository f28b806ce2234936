"""Compose scenes of stickers with captions and ground truth, as tars to train on.

    python -m wuerstchen.data.stickers STICKERS OUT --count 20000

STICKERS is a folder of tars, train-*.tar and test-cells-*.tar, with transparent images whose JSON
has the fields `name` and `style`.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from wuerstchen.data.stickers import Composer, Mix, Part, open_sprites, write_scenes
from wuerstchen.errors import ConfigError, WuerstchenError

app = typer.Typer(add_completion=False)


@app.command()
def compose(
    stickers: Annotated[
        Path,
        typer.Argument(metavar="STICKERS", help="Folder with train-*.tar and test-cells-*.tar."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Training scenes.")] = 20_000,
    held_out: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Held-out scenes: pairs of object and style that are not in the training scenes.",
        ),
    ] = 500,
    size: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the images, a multiple of 128.")
    ] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    pair: Annotated[
        float,
        typer.Option(metavar="FRACTION", min=0, max=1, help="Fraction of scenes of two objects."),
    ] = 0.25,
    several: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            min=0,
            max=1,
            help="Fraction of scenes of two to four copies of one sticker.",
        ),
    ] = 0.15,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Number of processes.")] = 1,
) -> None:
    """Compose scenes of stickers, each with several captions and its ground truth.

    A scene is one sticker on one of twelve named backgrounds, two with a relation, or two to four
    copies of one. Train on them with data.path=OUT. The same options give the same files.
    """
    if pair + several > 1:
        raise ConfigError(
            f"Expected fractions of pair and several whose sum is at most 1, found {pair} and "
            f"{several}; lower one of them."
        )
    mix = Mix(pair, several)
    parts: list[tuple[Part, int]] = [("train", count), ("test-cells", held_out)]
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        for part, scenes in parts:
            if not scenes:
                continue
            composer = Composer(open_sprites(stickers, part), size, seed, mix)
            task = bar.add_task(part, total=scenes)
            write_scenes(composer, scenes, out, workers, partial(bar.advance, task))
    typer.echo(out)


if __name__ == "__main__":
    try:
        app(prog_name="python -m wuerstchen.data.stickers")
    except WuerstchenError as error:
        sys.exit(f"Error: {error}")
