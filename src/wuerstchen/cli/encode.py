"""`wuerstchen encode`: what finished stages make of the training images, once for all runs."""

import logging
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from wuerstchen.cli.launcher import rank_and_world
from wuerstchen.errors import TrainingError, how_to_install

if TYPE_CHECKING:
    from wuerstchen.training.latent_cache import EncodingKind

EPILOG = "wuerstchen encode tiny data.path=prepared data.latent_cache=encoded"


class Kind(StrEnum):
    SEMANTICS = "semantics"
    LATENTS = "latents"
    TEXT = "text"


WHAT: "dict[Kind, EncodingKind]" = {
    Kind.SEMANTICS: "semantics",
    Kind.LATENTS: "latents",
    Kind.TEXT: "text",
}


def encode(
    config: Annotated[str, typer.Argument(help="The YAML file or shipped config of the training.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="The same values as for the training."),
    ] = None,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(
            help="semantics for Stage C (the default), text for its published encoder, latents for "
            "Stage B; may come several times."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="KIND", help="Numbers on the disk: fp16 or fp32.")
    ] = "fp16",
) -> None:
    """Encode the training images into data.latent_cache, with the finished stages of the model folder.

    `wuerstchen train` with the same config then reads them, and Stage C no images at all.
    Encodings belong to the weights and the data that they were made of; others are never read.
    Running it again makes what is missing or damaged. To share the work among processes:
    torchrun --nproc-per-node 2 -m wuerstchen encode CONFIG …
    """
    from wuerstchen.config import load

    settings = load(config, overrides or [])
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("wuerstchen").setLevel(logging.INFO)
    rank, world = rank_and_world()
    try:
        from wuerstchen.training.cache_latents import encode as work
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"Encoding needs {error.name}, which is not installed; {how_to_install('train')}."
        ) from None
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=rank > 0, redirect_stdout=False) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done)

        kinds = [WHAT[each] for each in kind or [Kind.SEMANTICS]]
        folders = work(settings, kinds, dtype, rank=rank, world=world, tell=tell)
    for folder in folders if rank == 0 else ():
        typer.echo(folder)
