"""`wuerstchen train`: train a model folder from a config and images."""

from typing import Annotated, Literal

import typer

from wuerstchen.cli.options import TrainingSource
from wuerstchen.errors import TrainingError, how_to_install
from wuerstchen.terminal import print_path, start_log

EPILOG = "wuerstchen train tiny data.path=images"


def train(
    config: TrainingSource,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Config values, such as data.path=images."),
    ] = None,
    stage: Annotated[
        Literal["a", "b", "c"] | None,
        typer.Option(help="Train only this stage instead of all in order."),
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume a run even if its config has changed.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace components in the model folder that were not trained there.",
        ),
    ] = False,
) -> None:
    """Train Stage A, the compressor with Stage B, and Stage C into one model folder.

    Running the same command again resumes where it stopped; finished stages are not trained again.
    Progress goes to stderr, the model folder's path to stdout. To train on several devices:
    accelerate launch --multi_gpu -m wuerstchen train CONFIG …
    """
    from wuerstchen.config import load

    settings = load(config, overrides or [])
    start_log()
    try:
        from wuerstchen.training import distributed, run

        folder = run.train(settings, stage, allow_changes=allow_changes, overwrite=overwrite)
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"Training needs {error.name}, which is not installed; {how_to_install('train')}."
        ) from None
    except KeyboardInterrupt:  # outside of the loop, which handles Ctrl-C itself
        raise TrainingError(
            "Interrupted outside of the training steps; checkpoints are kept, run the same "
            "command to resume."
        ) from None
    if distributed.is_main_process():
        print_path(folder)
    distributed.shut_down()
