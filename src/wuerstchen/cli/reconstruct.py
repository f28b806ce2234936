"""`wuerstchen reconstruct`: encode images and make them again, with one stage or all that can."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from PIL.Image import Image

from wuerstchen.cli.options import PROVENANCE_HELP, tell
from wuerstchen.cli.output_path import write_image
from wuerstchen.display import printable
from wuerstchen.errors import SaveError

EPILOG = """Examples:

[bold]wuerstchen reconstruct photo.jpg[/bold]

[bold]wuerstchen reconstruct photos/*.jpg --stage a --model models/mine --out seen/[/bold]"""


class Stages(StrEnum):
    A = "a"
    B = "b"
    ALL = "all"


TITLES: dict[Literal["a", "b"], str] = {"a": "Stage A", "b": "compressor, Stage B and Stage A"}


def reconstruct(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    stage: Annotated[
        Stages,
        typer.Option(help="a: Stage A alone; b: the compressor, Stage B and Stage A; all: both."),
    ] = Stages.ALL,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What Stage B reads.")] = "",
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels, multiples of 128.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of Stage B's noise.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(metavar="PATH|OWNER/NAME", help="As of `generate`; default: the bundled one."),
    ] = None,
    compressor: Annotated[
        str | None,
        typer.Option(metavar="PATH|OWNER/NAME", help="The compressor, if the model has none."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the images; it is made if needed.")
    ] = Path("."),
    provenance: Annotated[
        bool, typer.Option("--provenance/--no-provenance", help=PROVENANCE_HELP)
    ] = True,
) -> None:
    """Encode images, make them again, and print how close they come, one line per image and stage.

    The line has the stages, the peak signal-to-noise ratio (PSNR) and the path of the new image. By
    default an image keeps its size where both sides are multiples of 128; others are cropped and
    resized to about the model's own size.
    """
    import torch  # here, and not for --help

    from wuerstchen import weights
    from wuerstchen.cli.image_file import read_image
    from wuerstchen.cli.request import parse_size
    from wuerstchen.inference.pipeline import Pipeline
    from wuerstchen.inference.png_metadata import png_with_settings

    width, height = parse_size(size)
    for path in images:  # what cannot be read is refused before a model is opened
        read_image(path, "IMAGE")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"--out: cannot create the folder {out} ({error.strerror}).") from None
    pipeline = Pipeline.from_files(weights.resolve(model, compressor=compressor, tell=tell))
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    for path in images:
        image, _ = read_image(path, "IMAGE")
        for letter in TITLES:
            if stage in (letter, Stages.ALL):
                found = pipeline.reconstruct(
                    image, prompt, stage=letter, height=height, width=width, seed=seed
                )
                (made,) = found.images
                assert isinstance(made, Image)
                content = png_with_settings(made, None, "edited" if provenance else None)
                target = out / f"{path.stem}-stage-{letter}.png"
                written = write_image(target, content, replaces=False)
                print(printable(f"{TITLES[letter]}\t{found.psnr[0]:.2f} dB\t{written}"), flush=True)
