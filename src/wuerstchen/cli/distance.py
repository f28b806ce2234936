"""`wuerstchen distance`: FID, KID and other distances between real and drawn images."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wuerstchen.cli import options
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

if TYPE_CHECKING:
    from wuerstchen.evaluation.distances.images import ImageSet, StoredImages
    from wuerstchen.evaluation.distances.record import Setting

EPILOG = """Examples:

[bold]wuerstchen distance photos generated[/bold]

[bold]wuerstchen distance 'stickers/test-*.tar' --model models/mine --count 500[/bold]

[bold]wuerstchen distance coco generated --features inception=pt_inception-2015-12-05-6726825d.pth \
--resize legacy --size 256[/bold]"""


def distance(
    real: Annotated[
        str, typer.Argument(metavar="REAL", help="Images: a folder, tars or a prepared set.")
    ],
    drawn: Annotated[
        str | None, typer.Argument(metavar="[DRAWN]", help="The same, of drawn images.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Draw them instead: a model folder or Hub id."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts of the drawn images: text, CSV, TSV or JSONL (default for a model: "
            "captions of the real images).",
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="NETWORK",
            help="lite0 (in the extra judge), or inception=FILE, clip=PATH, siglip=PATH, "
            "dinov2=PATH.",
        ),
    ] = "lite0",
    count: Annotated[
        int | None, options.number(1, "Images of each side, evenly spaced (default: all).")
    ] = None,
    resize: Annotated[
        Literal["clean", "legacy"],
        typer.Option(help="Bicubic and antialiased as in clean-fid, or bilinear as pytorch-fid."),
    ] = "clean",
    crop: Annotated[
        Literal["square", "none"], typer.Option(help="Cut out the centre, or distort.")
    ] = "square",
    size: Annotated[
        int | None, options.number(8, "Bring all images to N x N first, as for an FID at 256.")
    ] = None,
    seed: options.EvaluationSeed = 0,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep features there: the same command goes on, or is faster."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for distance.json.")] = Path(
        "distance"
    ),
    overwrite: options.OverwriteReport = False,
) -> None:
    """Measure how far drawn images are from real ones: FID, KID, MIND, precision, recall.

    Also density, coverage and, with inception, the Inception Score. Every result has its protocol:
    numbers of images, resizing, network and its hash, sampler, steps, guidance, seeds, prompts.
    """
    if (drawn is None) == (model is None):
        raise ConfigError(
            "Expected drawn images or --model MODEL to draw them, found "
            f"{'neither' if drawn is None else 'both'}; name one."
        )

    import torch  # loads here and below, not for --help

    from wuerstchen import weights
    from wuerstchen.data.prompts import read_prompts
    from wuerstchen.evaluation.distances.drawing import open_drawing
    from wuerstchen.evaluation.distances.images import StoredImages
    from wuerstchen.evaluation.distances.measure import measure
    from wuerstchen.evaluation.distances.networks import open_network
    from wuerstchen.evaluation.distances.preparation import Preparation
    from wuerstchen.evaluation.distances.record import FILE

    lines = None
    if prompts is not None:
        lines = [prompt.text for prompt in read_prompts(prompts, doubles=True)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = open_network(features, device)
    stored = StoredImages(real, count)
    folder = weights.find(model) if model is not None else Path(drawn or "")
    options.make_report_folder(out, [FILE], overwrite=overwrite, model=folder, data=real)
    about: dict[str, Setting]
    images: ImageSet
    if drawn is not None:
        images, about = StoredImages(drawn, count), {"source": drawn}
    else:
        lines = _prompts(stored, lines, count)
        images, about = open_drawing(folder, lines, seed)
    with options.progress_bars() as progress:
        found = measure(
            stored,
            images,
            network,
            Preparation(resize=resize, crop=crop, size=size),
            about=about,
            prompts=lines,
            seed=seed,
            keep=keep,
            progress=progress,
        )
    for line in found.record.lines():
        print(printable(line), flush=True)
    for remark in found.remarks:
        options.tell(remark)
    print("Wrote", printable(found.record.save(out)), file=sys.stderr)


def _prompts(real: "StoredImages", lines: list[str] | None, count: int | None) -> list[str]:
    """What a model is to draw. Raises ConfigError for fewer prompts than images."""
    asked = real.captions() if lines is None else lines
    if count is not None and len(asked) < count:
        raise ConfigError(
            f"--prompts: expected at least {count} prompts for --count {count}, found "
            f"{len(asked)}; ask for fewer images."
        )
    return asked[:count]
