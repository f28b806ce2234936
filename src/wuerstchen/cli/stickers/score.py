"""`wuerstchen stickers score`: how well a model obeys prompts about stickers."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from PIL import Image

from wuerstchen.cli import options
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

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
    guidance: Annotated[
        float | None, typer.Option(help="Strength of the prompt in Stage C (default: the model's).")
    ] = None,
    steps: Annotated[
        int | None, options.number(1, "Steps of Stage C (default: the model's).")
    ] = None,
    batch_size: Annotated[
        int | None,
        options.number(1, "Images drawn together (default: 20 of 256 pixels, fewer if larger)."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="cpu, cuda, cuda:1 or mps (default: the accelerator, if any)."
        ),
    ] = None,
    overwrite: options.OverwriteReport = False,
) -> None:
    """Score a model's images: object, style, background, count, relation, held-out cells.

    A judge built from the stickers names what it sees. It judges real images of the same prompts
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
        if device is not None:
            pipeline.to(_device(device))
        examiner = scoring.build_examiner(stickers, features, progress, pipeline.device)
        seconds: list[float] = []

        def draw(prompts: Sequence[str], first: int) -> Sequence[Image.Image]:
            start = time.perf_counter()
            images = pipeline(
                list(prompts),
                prior_guidance_scale=guidance,
                prior_num_inference_steps=steps,
                seed=first,
                output_type="pil",
            ).images
            seconds.append((time.perf_counter() - start) / len(prompts))
            return [image for image in images if isinstance(image, Image.Image)]

        with options.metered(folder):
            found = scoring.score(
                draw,
                stickers,
                examiner,
                size=pipeline.info.size,
                count=count,
                seed=seed,
                batch_size=batch_size,
                progress=progress,
            )
    for line in found.lines():
        print(printable(line), flush=True)
    settings: dict[str, str | int | float] = {
        "model": pipeline.info.name,
        "count": count,
        "seed": seed,
        "size": pipeline.info.size,
        "guidance": "the model's" if guidance is None else guidance,
        "steps": "the model's" if steps is None else steps,
        "device": str(pipeline.device),
        # The median batch: neither the first one nor an interruption counts.
        "seconds_per_image": round(median(seconds), 3),
    }
    print("Wrote", *map(printable, found.save(out, settings)), file=sys.stderr)


def _device(name: str) -> str:
    """Raises ConfigError for a device that this machine does not have."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):  # torch without CUDA raises the latter
        raise ConfigError(
            f"--device: expected a device of this machine, such as cpu, found {name!r}."
        ) from None
    return name
