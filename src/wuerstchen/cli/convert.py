"""`wuerstchen convert`: convert model files between formats."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.options import Configs, tell
from wuerstchen.terminal import print_path

EPILOG = """Examples:

[bold]wuerstchen convert model_v2_stage_c.pt models/mine --to diffusers[/bold]

[bold]wuerstchen convert warp-ai/wuerstchen all.safetensors --to single-file --dtype bf16[/bold]"""


class FileFormat(StrEnum):
    DIFFUSERS = "diffusers"
    ORIGINAL = "original"
    SINGLE_FILE = "single-file"


class Dtype(StrEnum):
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
        FileFormat,
        typer.Option(
            help="diffusers: a model folder; each component gets its folder there, others stay. "
            "original: the authors' key names, a .safetensors per stage and one for the "
            "compressor; .pt files are read but never written. single-file: one .safetensors."
        ),
    ],
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Dtype of the weights; by default they are copied bit for bit."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            help="The prior of a decoder IN, a folder or hub id.",
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="WORD", help="Read NAME.WORD.safetensors, such as fp16.")
    ] = None,
    config: Configs = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace components that exist at OUT.")
    ] = False,
) -> None:
    """Convert model files between formats, exactly: there and back gives the same bits.

    IN may be a whole model or a component, in any layout. An interruption leaves no half-written
    files; a model folder keeps the costs in its receipt. Written paths are printed to stdout.
    """
    import torch  # not at the top, so that --help is fast

    from wuerstchen import weights
    from wuerstchen.cli.merge import model_of
    from wuerstchen.receipts import adopt_models

    dtypes = {
        Dtype.FP32: torch.float32,
        Dtype.BF16: torch.bfloat16,
        Dtype.FP16: torch.float16,
    }
    path, components = weights.resolve_components(
        source, prior=prior, variant=variant, configs=config or (), tell=tell
    )
    written = weights.convert(
        components,
        out,
        to.value,
        source=path,
        others=[Path(prior)] if prior is not None else [],
        dtype=None if dtype is None else dtypes[dtype],
        overwrite=overwrite,
    )
    if to is FileFormat.DIFFUSERS:  # the other formats are files, which have no receipt
        sources = [path] if prior is None else [path, Path(prior)]
        adopt_models([model_of(source) for source in sources], out)
    if others := weights.left_out(path, components):
        tell(f"Not carried over from {path}: {weights.listed(others)}.")
    for target in written:
        print_path(target)
