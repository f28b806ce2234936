"""`wuerstchen encode`: encode the training images with finished stages, once for all runs."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli.options import progress_bars, rank_and_world
from wuerstchen.errors import TrainingError, how_to_install
from wuerstchen.terminal import print_path, start_log

if TYPE_CHECKING:
    from wuerstchen.training.latent_cache import EncodingKind

EPILOG = "wuerstchen encode tiny data.path=prepared data.latent_cache=encoded"


class Kind(StrEnum):
    SEMANTICS = "semantics"
    LATENTS = "latents"
    TEXT = "text"


KINDS: "dict[Kind, EncodingKind]" = {
    Kind.SEMANTICS: "semantics",
    Kind.LATENTS: "latents",
    Kind.TEXT: "text",
}


def encode(
    config: Annotated[str, typer.Argument(help="The YAML file or shipped config of the training.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="The same config values as for the training."),
    ] = None,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(
            help="semantics for Stage C (the default), text for its published encoder, latents for "
            "Stage B; can be repeated."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="dtype of the files: fp16 or fp32.")
    ] = "fp16",
) -> None:
    """Encode the training images into data.latent_cache, with finished stages of the model folder.

    `wuerstchen train` with the same config then reads them, and Stage C reads no images at all.
    Encodings are bound to the weights and the data they were made from; stale ones are never read.
    Running it again adds what is missing or damaged. To use several processes:
    torchrun --nproc-per-node 2 -m wuerstchen encode CONFIG …
    """
    from wuerstchen.config import load

    settings = load(config, overrides or [])
    start_log()
    rank, world = rank_and_world()
    try:
        from wuerstchen.training import cache_latents
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"Encoding needs {error.name}, which is not installed; {how_to_install('train')}."
        ) from None
    kinds = [KINDS[each] for each in kind or [Kind.SEMANTICS]]
    try:
        with progress_bars(visible=rank == 0) as progress:
            folders = cache_latents.encode(
                settings, kinds, dtype, rank=rank, world=world, on_progress=progress
            )
    except KeyboardInterrupt:
        raise TrainingError(
            f"Interrupted; finished files are kept in {settings.data.latent_cache}. Run the same "
            "command to resume."
        ) from None
    for folder in folders if rank == 0 else ():
        print_path(folder)
