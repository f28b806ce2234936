"""`wuerstchen stickers compose`: scenes of stickers with captions and ground truth, as tars."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli.options import number, progress_bars
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.terminal import print_path

if TYPE_CHECKING:
    from wuerstchen.data.stickers import Part

EPILOG = "wuerstchen stickers compose stickers scenes --count 20000"


def compose(
    stickers: Annotated[
        Path,
        typer.Argument(metavar="STICKERS", help="Folder with train-*.tar and test-cells-*.tar."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder for the tars.")],
    count: Annotated[int, number(1, "Training scenes.")] = 20_000,
    held_out: Annotated[
        int,
        number(
            0, "Held-out scenes: pairs of object and style that are not in the training scenes."
        ),
    ] = 500,
    size: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the images, a multiple of 128.")
    ] = 128,
    seed: Annotated[int, number(0, "Seed of all random choices.")] = 0,
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
    workers: Annotated[int, number(1, "Number of processes.")] = 1,
) -> None:
    """Compose scenes of stickers, each with several captions and its ground truth.

    A scene is one sticker on one of twelve named backgrounds, two with a relation, or two to four
    copies of one. Train on them with data.path=OUT. The same options give the same files.
    """
    from wuerstchen import overlap, owned
    from wuerstchen.data.stickers import Composer, Mix, open_sprites, write_scenes

    if pair + several > 1:
        raise ConfigError(
            f"Expected fractions --pair and --several whose sum is at most 1, found {pair} and "
            f"{several}; lower one of them."
        )
    overlap.check_apart({"STICKERS": stickers}, out)
    # Tars of the set have the same names, and training would use those that an earlier run left.
    if not owned.is_empty(out):
        raise SaveError(
            f"{out}: expected a new or empty folder for the scenes, found files; choose another "
            "OUT, or delete the folder."
        )
    parts: list[tuple[Part, int]] = [("train", count), ("test-cells", held_out)]
    with progress_bars() as report:
        for part, scenes in parts:
            if not scenes:
                continue
            composer = Composer(open_sprites(stickers, part), size, seed, Mix(pair, several))
            written = 0

            def on_written(more: int, part: str = part, scenes: int = scenes) -> None:
                nonlocal written
                written += more
                report(part, written, scenes)

            write_scenes(composer, scenes, out, workers, on_written)
    print_path(out)
