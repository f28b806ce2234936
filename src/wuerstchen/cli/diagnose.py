"""`wuerstchen diagnose`: which stage of a model limits its images.

Progress goes to stderr; the verdict and its tables, and nothing else, go to stdout.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.checks import at_least
from wuerstchen.cli.evaluation_options import make_folder, metered, progress_bars, split_words
from wuerstchen.errors import ConfigError

EPILOG = """Examples:

[bold]wuerstchen diagnose data.path=images data.balance_by=name[/bold]

[bold]wuerstchen diagnose models/mine data.path=images --images 50 --out report/[/bold]"""


def diagnose(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] data.path=IMAGES [data.KEY=VALUE]...",
            help="A model folder or a model of the hub (without it: the bundled one), and the "
            "data as in the config of its training: data.path, data.balance_by, data.test_fraction.",
            default_factory=list,
            show_default=False,
        ),
    ],
    images: Annotated[
        int,
        typer.Option(
            callback=at_least(1),
            metavar="N",
            help="Held-out images, and as many training captions.",
        ),
    ] = 100,
    seed: Annotated[
        int,
        typer.Option(
            callback=at_least(0), help="Chooses captions and noise; same seed, same figures."
        ),
    ] = 0,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where diagnosis.json, .png and .html go.")
    ] = Path("diagnosis"),
) -> None:
    """Say which stage limits the images of a model, and what to do about it.

    Held-out images go through Stage A alone, through Stage B + A from their true semantics, and
    through all three stages from their captions; what each stage loses is told apart.
    """
    from wuerstchen.config import load_data  # torch loads here and below, not for --help

    model, settings = split_words(words)
    data = load_data(settings)
    if not data.path:
        raise ConfigError(
            "Expected data.path=FOLDER, found none; name the images that the model learned from."
        )
    make_folder(out)

    from wuerstchen.evaluation.diagnose import diagnose
    from wuerstchen.evaluation.diagnosis_page import save
    from wuerstchen.evaluation.diagnosis_tables import lines
    from wuerstchen.inference import model_info

    folder = model_info.find(model)
    with progress_bars() as progress:
        with metered(folder):
            found = diagnose(folder, data, images=images, seed=seed, progress=progress)
        paths = save(found, out)
    for line in lines(found):
        print(line, flush=True)
    print("Wrote", *paths, file=sys.stderr)
