"""`wuerstchen evaluate`: measure a model and write image grids.

Progress goes to stderr; stdout holds only the table of figures.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TimeRemainingColumn

from wuerstchen.cli import options
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError
from wuerstchen.parsing import ParseError, read_bytes

PROMPTS = "prompts.png"

EPILOG = """Examples:

[bold]wuerstchen evaluate data.path=images data.balance_by=name[/bold]

[bold]wuerstchen evaluate models/mine data.path=images --prompts 50 --out report/[/bold]

[bold]wuerstchen evaluate --prompt-file prompts.txt --columns 4[/bold]"""


def evaluate(
    arguments: Annotated[list[str], options.model_and_data("[MODEL] [data.KEY=VALUE]...")],
    prompts: Annotated[
        int, options.number(0, "Training captions to generate, one per object.")
    ] = 200,
    images: Annotated[
        int | None, options.number(0, "Test images to reconstruct (default: all).")
    ] = None,
    seed: options.EvaluationSeed = 0,
    prompt_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts to generate as a grid, one per line."),
    ] = None,
    columns: Annotated[int, options.number(1, "Columns of the prompt grid.")] = 8,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for evaluation.json and the grids.")
    ] = Path("evaluation"),
    overwrite: options.OverwriteReport = False,
) -> None:
    """Measure reconstruction on test images, and how well a model follows captions.

    Figures come with 95 % intervals. Images have the model's own size, and data.size is ignored.
    Without data.path, only the prompts of --prompt-file are generated.
    """
    from wuerstchen.config import load_data  # torch loads here and below, not for --help

    model, settings = options.split_arguments(arguments)
    data = load_data(settings)
    lines = read_prompts(prompt_file) if prompt_file is not None else []
    if not data.path and not lines:
        raise ConfigError(
            "Expected data.path=FOLDER, --prompt-file FILE or both, found neither; "
            "name the images to measure on."
        )

    from wuerstchen import evaluation, weights
    from wuerstchen.evaluation.grid import save_image
    from wuerstchen.evaluation.report import FILES

    folder = weights.find(model)
    names = [*(FILES if data.path else ()), *([PROMPTS] if lines else ())]
    options.make_report_folder(out, names, overwrite=overwrite, model=folder, data=data.path)
    with options.progress_bars(TimeRemainingColumn()) as progress:
        if data.path:
            with options.metered(folder):
                found = evaluation.evaluate(
                    folder, data, prompts=prompts, images=images, seed=seed, progress=progress
                )
            paths = found.save(out)
            for line in found.lines():
                print(printable(line), flush=True)
        else:
            paths = []
        if lines:
            pipeline = evaluation.open_pipeline(folder)
            grid = evaluation.prompt_grid(pipeline, lines, columns, seed=seed, progress=progress)
            paths.append(out / PROMPTS)
            save_image(paths[-1], grid)
    print("Wrote", *map(printable, paths), file=sys.stderr)


def read_prompts(path: Path) -> list[str]:
    """The non-empty lines of a file."""
    from wuerstchen.data.captions import decode_text, lines_of

    try:
        text = decode_text(read_bytes(path))
    except (OSError, ParseError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--prompt-file: expected a text file at {path}, but {reason}.") from None
    lines = [line.strip() for line in lines_of(text) if line.strip()]
    if not lines:
        raise ConfigError(f"--prompt-file: expected one prompt per line, found none in {path}.")
    return lines
