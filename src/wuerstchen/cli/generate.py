"""`wuerstchen generate`: images for a prompt.

Progress goes to stderr; the paths of the images, and nothing else, go to stdout.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.checks import at_least
from wuerstchen.cli.output_path import check_target, image_path

HOW, MODEL, FILES = "How it is drawn", "Which model", "Files"
"""Headings in the help."""

EPILOG = """Examples:

[bold]wuerstchen generate "a red apple"[/bold]

[bold]wuerstchen generate "a sleepy cat" --num-images 4 --seed 7 --out cats/[/bold]

[bold]wuerstchen generate "a green hat" --model models/mine --steps 40 --out hat.png[/bold]

[bold]wuerstchen generate --from hat.png --out again.png[/bold]"""


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help='What to draw; "" draws without text.'),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to lead away from.")
    ] = None,
    num_images: Annotated[
        int,
        typer.Option(
            callback=at_least(1), metavar="N", help="Images to draw, with the seeds that follow."
        ),
    ] = 1,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the first image; the same seed draws it again. -1: random."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Pixels, multiples of 128, such as 512x768 or 512."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            callback=at_least(1),
            metavar="N",
            help="Steps of Stage C, which reads the prompt.",
            rich_help_panel=HOW,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of Stage C: ddpm, ddim, dpm++2m, dpm++2m-sde, heun or euler-ancestral.",
            rich_help_panel=HOW,
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of the steps of Stage C: time, log_snr, tuned, or published (29 steps).",
            rich_help_panel=HOW,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="How much the prompt counts in Stage C; up to 1: no guidance.",
            rich_help_panel=HOW,
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="Times that are guided, 0 (image) to 1 (noise); others cost half.",
            rich_help_panel=HOW,
        ),
    ] = None,
    guidance_rescale: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Against harsh colours at high guidance, 0 to 1.",
            rich_help_panel=HOW,
        ),
    ] = None,
    guidance_end: Annotated[
        float | None,
        typer.Option(
            metavar="SCALE", help="Guidance falls evenly to this one.", rich_help_panel=HOW
        ),
    ] = None,
    decoder_steps: Annotated[
        int | None,
        typer.Option(
            callback=at_least(1),
            metavar="N",
            help="Steps of Stage B, which adds the details.",
            rich_help_panel=HOW,
        ),
    ] = None,
    decoder_sampler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of Stage B; names as above.", rich_help_panel=HOW),
    ] = None,
    decoder_spacing: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of the steps of Stage B; names as above.", rich_help_panel=HOW
        ),
    ] = None,
    decoder_guidance: Annotated[
        float | None,
        typer.Option(help="How much semantics and prompt count in Stage B.", rich_help_panel=HOW),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|OWNER/NAME",
            help="A model folder or file, or a model of the hub, which is downloaded. "
            "Without it: the model that comes with the package, and no network.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|OWNER/NAME",
            help="The prior (Stage C), where the model is a decoder or another one is wanted.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="Read NAME.WORD.safetensors, such as fp16.", rich_help_panel=MODEL
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH[=WEIGHT]",
            help="A LoRA of any tool; may come several times.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Numbers to work in: fp32, bf16 or fp16.", rich_help_panel=MODEL
        ),
    ] = None,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="Have each part in memory only while it works; slower.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A .png file, which is replaced where it stands, or a folder (one that exists, "
            "or a name ending in /). Without it: a new file here, named after the prompt.",
            rich_help_panel=FILES,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="IMAGE",
            help="Make an image again by the settings in it; options change single ones.",
            rich_help_panel=FILES,
        ),
    ] = None,
    metadata: Annotated[
        bool,
        typer.Option(
            "--metadata/--no-metadata",
            help="Write the settings into the PNG.",
            rich_help_panel=FILES,
        ),
    ] = True,
) -> None:
    """Draw images for a prompt, and print their paths, one per line.

    Steps, sampler, guidance and size are the model's own where they are not given.
    """
    check_target(out)

    from wuerstchen import noise, weights  # torch loads here, and not for --help
    from wuerstchen.cli.generate_images import draw
    from wuerstchen.cli.model import check_same, names, open_model, parse_loras
    from wuerstchen.cli.request import from_options, parse_interval
    from wuerstchen.inference import generation_plan
    from wuerstchen.inference.model_info import ModelInfo, StageSettings, info_of
    from wuerstchen.inference.png_metadata import save_png

    request = from_options(
        prompt,
        negative_prompt,
        size,
        StageSettings(
            steps=steps,
            sampler=sampler,
            spacing=spacing,
            guidance_scale=guidance,
            guidance_interval=parse_interval(guidance_interval),
            guidance_rescale=guidance_rescale,
            guidance_end=guidance_end,
        ),
        StageSettings(
            steps=decoder_steps,
            sampler=decoder_sampler,
            spacing=decoder_spacing,
            guidance_scale=decoder_guidance,
        ),
        seed,
        num_images,
        dtype,
        image,
    )
    # What no model can do is said before one is opened, and before a tokenizer meets the texts.
    generation_plan.plan(ModelInfo(), prior=request.prior, decoder=request.decoder)
    generation_plan.texts(request.prompt, request.negative_prompt, None, num_images)
    noise.check_seed(request.seed, num_images)
    loras = parse_loras(lora or [])
    # What this model cannot do is said before its weights are read.
    files = weights.resolve(model, prior=prior, variant=variant)
    info = info_of(files)
    check_same(request, info.name, loras)
    plan = generation_plan.plan(
        info,
        height=request.height,
        width=request.width,
        prior=request.prior,
        decoder=request.decoder,
    )
    pipeline = open_model(files, request, loras, low_memory=low_memory)
    _warn(pipeline.cut_off(request.prompt))
    _warn(pipeline.cut_off(request.negative_prompt, "negative prompt"))
    for drawn, settings in draw(pipeline, plan, request, names(loras)):
        path = image_path(out, request.prompt, settings.seed, several=num_images > 1)
        save_png(path, drawn, settings if metadata else None)
        print(path, flush=True)


def _warn(sentence: str) -> None:
    """Say now what the pipeline would say as a Python warning, with file and line, later."""
    from wuerstchen.inference.pipeline import PromptWarning

    if sentence:
        print(f"Warning: {sentence}", file=sys.stderr)
        warnings.simplefilter("ignore", PromptWarning)
