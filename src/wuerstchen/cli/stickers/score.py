"""`wuerstchen stickers score`: how well a model obeys prompts about stickers."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from wuerstchen.cli import options
from wuerstchen.display import printable

EPILOG = "wuerstchen stickers score models/mine stickers --count 100 --out scores"


def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or Hub id.")],
    stickers: Annotated[
        Path,
        typer.Argument(metavar="STICKERS", help="Folder with train-*.tar and test-cells-*.tar."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder for scores.json, scores.html and the grid."),
    ] = Path("scores"),
    count: Annotated[int, options.number(2, "Images of each of the four sets of prompts.")] = 200,
    seed: options.EvaluationSeed = 0,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the features of the stickers in this .safetensors file, for later scores.",
        ),
    ] = None,
    overwrite: options.OverwriteReport = False,
) -> None:
    """Score a model's pictures: object, style, background, count, relation, held-out cells.

    A judge built from the stickers names what it sees. It judges real pictures of the same prompts
    the same way: they are the ceiling. Figures come with 95 % intervals. Needs the extra judge.
    """
    from wuerstchen import evaluation, weights
    from wuerstchen.evaluation import stickers as scoring

    folder = weights.find(model)
    options.make_report_folder(
        out, scoring.FILES, overwrite=overwrite, model=folder, data=str(stickers)
    )
    with options.progress_bars() as progress:
        pipeline = evaluation.open_pipeline(folder)
        examiner = scoring.build_examiner(stickers, features, progress, pipeline.device)
        seconds = 0.0

        def draw(prompts: Sequence[str], first: int) -> Sequence[Image.Image]:
            nonlocal seconds
            start = time.perf_counter()
            images = pipeline(list(prompts), seed=first, output_type="pil").images
            seconds += time.perf_counter() - start
            return [image for image in images if isinstance(image, Image.Image)]

        with options.metered(folder):
            found = scoring.score(
                draw,
                stickers,
                examiner,
                size=pipeline.info.size,
                count=count,
                seed=seed,
                progress=progress,
            )
    for line in found.lines():
        print(printable(line), flush=True)
    settings: dict[str, str | int | float] = {
        "model": pipeline.info.name,
        "count": count,
        "seed": seed,
        "seconds_per_picture": round(seconds / (4 * count), 3),
    }
    print("Wrote", *map(printable, found.save(out, settings)), file=sys.stderr)
