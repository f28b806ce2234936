"""`wuerstchen convert`: model files of one kind to those of another."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples:

[bold]wuerstchen convert model_v2_stage_c.pt models/mine --to diffusers[/bold]

[bold]wuerstchen convert warp-ai/wuerstchen all.safetensors --to single-file --dtype bf16[/bold]"""


class Kind(StrEnum):
    DIFFUSERS = "diffusers"
    ORIGINAL = "original"
    SINGLE_FILE = "single-file"


class Numbers(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A model folder, a safetensors or .pt file, or a hub id (owner/name).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="A folder; with --to single-file a name that ends in .safetensors."
        ),
    ],
    to: Annotated[
        Kind,
        typer.Option(
            help="diffusers: a model folder; a part goes into its folder there, others stay. "
            "original: the authors' key names, a .safetensors per stage, the compressor in one of "
            "its own; .pt files are read but never written. single-file: all in one .safetensors."
        ),
    ],
    dtype: Annotated[
        Numbers | None, typer.Option(help="Kind of numbers; without it they stay bit by bit.")
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            help="The prior that belongs to IN, a folder or hub id, where IN is a decoder.",
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="WORD", help="Read NAME.WORD.safetensors, such as fp16.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace parts that are at OUT already.")
    ] = False,
) -> None:
    """Convert model files, both ways and exactly: there and back gives the same bits.

    A whole model or a part of one is read, whatever its layout, and written aside before it takes
    its place; a model folder takes the costs in a receipt along. What was written goes to stdout.
    """
    import torch  # here and not above, so that --help answers at once

    from wuerstchen import weights
    from wuerstchen.cli.merge import model_of
    from wuerstchen.receipts import adopt_models

    kinds = {
        Numbers.FP32: torch.float32,
        Numbers.BF16: torch.bfloat16,
        Numbers.FP16: torch.float16,
    }
    path, parts = weights.resolve_components(source, prior=prior, variant=variant)
    written = weights.convert(
        parts,
        out,
        to.value,
        source=path,
        dtype=None if dtype is None else kinds[dtype],
        overwrite=overwrite,
    )
    if to is Kind.DIFFUSERS:  # the others are files, which have no receipt beside them
        sources = [path] if prior is None else [path, Path(prior)]
        adopt_models([model_of(source) for source in sources], out)
    for target in written:
        typer.echo(target)
