"""`wuerstchen diagnose`: find the stage that limits the images of a model.

Progress goes to stderr; stdout holds only the verdict and its tables.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TimeRemainingColumn

from wuerstchen.cli import options
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

EPILOG = """Examples:

[bold]wuerstchen diagnose data.path=images data.balance_by=name[/bold]

[bold]wuerstchen diagnose models/mine data.path=images --images 50 --out report/[/bold]"""


def diagnose(
    arguments: Annotated[
        list[str], options.model_and_data("[MODEL] data.path=IMAGES [data.KEY=VALUE]...")
    ],
    images: Annotated[
        int, options.number(2, "Held-out images, and as many training captions.")
    ] = 100,
    seed: options.EvaluationSeed = 0,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for diagnosis.json, .png and .html.")
    ] = Path("diagnosis"),
    overwrite: options.OverwriteReport = False,
) -> None:
    """Find the stage that limits the images of a model, and what to do about it.

    Reconstructs held-out images with Stage A alone, with Stage B + A from their true semantics,
    and with all three stages from their captions, and measures what each stage loses.
    """
    from wuerstchen.config import load_data  # torch loads here and below, not for --help

    model, settings = options.split_arguments(arguments)
    data = load_data(settings)
    if not data.path:
        raise ConfigError(
            "Expected data.path=FOLDER, found none; name the images that the model was trained on."
        )

    from wuerstchen import weights
    from wuerstchen.evaluation.diagnose import diagnose
    from wuerstchen.evaluation.diagnosis_report import FILES, lines, save

    folder = weights.find(model)
    options.make_report_folder(out, FILES, overwrite=overwrite, model=folder, data=data.path)
    with options.progress_bars(TimeRemainingColumn()) as progress:
        with options.metered(folder):
            found = diagnose(folder, data, images=images, seed=seed, progress=progress)
        paths = save(found, out)
    for line in lines(found):
        print(printable(line), flush=True)
    print("Wrote", *map(printable, paths), file=sys.stderr)
