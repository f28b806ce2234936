"""`wuerstchen generate`: pictures for a prompt.

Progress goes to stderr; the paths of the pictures, and nothing else, go to stdout.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli.checks import at_least
from wuerstchen.cli.targets import check_target, picture_path
from wuerstchen.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from wuerstchen.arguments import Plan
    from wuerstchen.cli.request import Request
    from wuerstchen.picture_file import Settings
    from wuerstchen.pipeline import Pipeline
    from wuerstchen.steps import OnStep

BATCH = 8
"""Pictures drawn at a time: more take more memory, and longer to the first one."""

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
            callback=at_least(1), metavar="N", help="Pictures to draw, with the seeds that follow."
        ),
    ] = 1,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the first picture; the same seed draws it again. -1: random."),
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
            help="Times that are guided, 0 (picture) to 1 (noise); others cost half.",
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
    picture: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PICTURE",
            help="Make a picture again by the settings in it; options change single ones.",
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
    """Draw pictures for a prompt, and print their paths, one per line.

    Steps, sampler, guidance and size are the model's own where they are not given.
    """
    check_target(out)

    from wuerstchen import arguments  # torch loads here, and not for --help
    from wuerstchen.cli.request import from_options, parse_interval
    from wuerstchen.model_folder import ModelInfo, StageSettings
    from wuerstchen.picture_file import save_png

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
        StageSettings(steps=decoder_steps, sampler=decoder_sampler),
        seed,
        num_images,
        dtype,
        picture,
    )
    # What no model can do is said before one is opened, and before a tokenizer meets the texts.
    arguments.plan(ModelInfo(), prior=request.prior, decoder=request.decoder)
    arguments.texts(request.prompt, request.negative_prompt, None, num_images)
    pipeline = _open(request, model, prior, variant, low_memory=low_memory)
    loras = _load_loras(pipeline, lora or [])
    check_same(request, pipeline, loras)
    planned = arguments.plan(
        pipeline.info,
        height=request.height,
        width=request.width,
        prior=request.prior,
        decoder=request.decoder,
    )
    _warn(pipeline.cut_off(request.prompt))
    _warn(pipeline.cut_off(request.negative_prompt, "negative prompt"))
    for drawn, settings in _draw(pipeline, planned, request, loras):
        path = picture_path(out, request.prompt, settings.seed, several=num_images > 1)
        save_png(path, drawn, settings if metadata else None)
        print(path, flush=True)


def check_same(request: "Request", pipeline: "Pipeline", loras: dict[str, float]) -> None:
    """Raise ConfigError where a picture is to be made again by another model or other LoRAs."""
    from wuerstchen import __version__

    again = request.again
    if again is None:
        return
    if again.model != pipeline.info.name:
        raise ConfigError(
            f"The picture was drawn by the model {again.model!r}, found {pipeline.info.name!r}; "
            "pass --model, or --seed to draw another picture with its settings."
        )
    if again.loras != loras:
        raise ConfigError(
            f"The picture was drawn with the LoRAs {again.loras or 'none'}, found "
            f"{loras or 'none'}; pass the same ones as --lora PATH=WEIGHT."
        )
    if again.version != __version__:
        print(
            f"Warning: the picture was drawn by version {again.version or 'unknown'}, this is "
            f"{__version__}; it may differ a little.",
            file=sys.stderr,
        )


def _open(
    request: "Request",
    model: str | None,
    prior: str | None,
    variant: str | None,
    *,
    low_memory: bool,
) -> "Pipeline":
    import torch

    from wuerstchen.pipeline import Pipeline

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    pipeline = Pipeline.from_pretrained(
        model,
        prior=prior,
        variant=variant,
        torch_dtype=kinds[request.dtype],
        low_memory=low_memory,
    )
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def _load_loras(pipeline: "Pipeline", words: list[str]) -> dict[str, float]:
    """Each LoRA's file name and weight."""
    from wuerstchen.adapters import parse_lora

    loaded: dict[str, float] = {}
    for word in words:
        path, weight = parse_lora(word)
        if path.name in loaded:
            raise ConfigError(f"--lora: {path.name} is named twice; name each LoRA once.")
        pipeline.load_lora_weights(path, adapter_name=path.name, weight=weight)
        loaded[path.name] = weight
    if loaded and not pipeline.low_memory:
        pipeline.fuse_lora()
    return loaded


def _warn(sentence: str) -> None:
    """Say now what the pipeline would say as a Python warning, with file and line, later."""
    from wuerstchen.pipeline import PromptWarning

    if sentence:
        print(f"Warning: {sentence}", file=sys.stderr)
        warnings.simplefilter("ignore", PromptWarning)


def _batches(request: "Request") -> Iterator[tuple[int | None, int, int | None]]:
    """First seed, pictures, and the one that is wanted where it is not all of them.

    What follows the first batch has the seeds that follow, whatever the first one was.
    """
    if request.again is not None and request.again.batch is not None:
        first, count = request.again.batch
        yield first, count, request.again.seed - first
        return
    for done in range(0, request.count, BATCH):
        seed = request.seed if done == 0 else None
        yield seed, min(BATCH, request.count - done), None


def _draw(
    pipeline: "Pipeline", plan: "Plan", request: "Request", loras: dict[str, float]
) -> "Iterator[tuple[Image, Settings]]":
    """Pictures and what made them, a batch at a time."""
    last: int | None = None
    for seed, count, wanted in _batches(request):
        with _progress() as on_step:
            drawn = pipeline.draw(
                plan,
                request.prompt,
                request.negative_prompt,
                count=count,
                seed=seed if last is None else last + 1,
                on_step=on_step,
            )
        last = drawn.seeds[-1]
        for index, picture in enumerate(drawn.images):
            if wanted is None or index == wanted:
                yield picture, _settings(pipeline, plan, request, loras, drawn.seeds, index)


def _settings(
    pipeline: "Pipeline",
    plan: "Plan",
    request: "Request",
    loras: dict[str, float],
    seeds: list[int],
    index: int,
) -> "Settings":
    from wuerstchen.picture_file import Settings

    guidance = plan.prior.guidance
    return Settings(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=seeds[index],
        width=plan.size[1],
        height=plan.size[0],
        prior_timesteps=plan.prior.times,
        prior_sampler=plan.prior.sampler,
        prior_guidance_scale=guidance.scale,
        prior_guidance_interval=guidance.interval,
        prior_guidance_rescale=guidance.rescale,
        prior_guidance_end=guidance.end,
        decoder_timesteps=plan.decoder.times,
        decoder_sampler=plan.decoder.sampler,
        decoder_guidance_scale=plan.decoder.guidance.scale,
        model=pipeline.info.name,
        dtype=request.dtype,
        loras=loras,
        batch=(seeds[0], len(seeds)),
    )


@contextmanager
def _progress() -> "Iterator[OnStep]":
    """A bar on stderr for each stage, in the order in which they start."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Left as it is, stdout carries the paths also where stderr is a terminal.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        tasks: dict[str, TaskID] = {}

        def on_step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield on_step
