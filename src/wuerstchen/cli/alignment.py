"""`wuerstchen alignment`: how well images show what their prompts ask for."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli import options
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

if TYPE_CHECKING:
    from wuerstchen.evaluation.distances.images import ImageSet
    from wuerstchen.evaluation.distances.record import Setting

EPILOG = """Examples:

[bold]wuerstchen alignment PartiPrompts.tsv generated --judge pickscore=PickScore_v1[/bold]

[bold]wuerstchen alignment prompts.txt --model models/mine --judge clip=clip-vit-large-patch14\
[/bold]"""


def alignment(
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS",
            help="One per line, or a .csv, .tsv or .jsonl with prompts and categories.",
        ),
    ],
    images: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGES]", help="An image for each prompt, in the order of their names."
        ),
    ] = None,
    judge: Annotated[
        str, typer.Option(metavar="JUDGE", help="clip=PATH or pickscore=PATH, or a Hub id.")
    ] = "",
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Draw them instead: a model folder or Hub id."),
    ] = None,
    count: Annotated[
        int | None, options.number(1, "The first N prompts of the list (default: all).")
    ] = None,
    seed: options.EvaluationSeed = 0,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for alignment.json.")] = Path(
        "alignment"
    ),
    overwrite: options.OverwriteReport = False,
) -> None:
    """Score how well images show their prompts: CLIPScore by both its definitions, or PickScore.

    By prompt and category, with 95 % intervals and the protocol. Of two results,
    `wuerstchen compare` gives the difference prompt by prompt.
    """
    if (images is None) == (model is None):
        raise ConfigError(
            "Expected images or --model MODEL to draw them, found "
            f"{'neither' if images is None else 'both'}; name one."
        )

    import torch  # loads here and below, not for --help

    from wuerstchen import weights
    from wuerstchen.data.prompts import read_prompts
    from wuerstchen.evaluation.alignment.judges import open_judge
    from wuerstchen.evaluation.alignment.measure import check_match, measure
    from wuerstchen.evaluation.alignment.record import FILE
    from wuerstchen.evaluation.distances.drawing import open_drawing
    from wuerstchen.evaluation.distances.images import StoredImages

    listed = read_prompts(prompts)[:count]
    network = open_judge(judge, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    folder = weights.find(model) if model is not None else Path(images or "")
    options.make_report_folder(out, [FILE], overwrite=overwrite, model=folder, data="")
    about: dict[str, Setting]
    chosen: ImageSet
    if images is not None:
        stored = StoredImages(images)
        check_match(stored, listed)
        chosen, about = stored, {"source": images}
    else:
        chosen, about = open_drawing(folder, [prompt.text for prompt in listed], seed)
    with options.progress_bars() as progress:
        found = measure(chosen, listed, network, about=about, progress=progress)
    for line in found.lines():
        print(printable(line), flush=True)
    print("Wrote", printable(found.save(out)), file=sys.stderr)
