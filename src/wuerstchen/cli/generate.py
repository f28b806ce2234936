"""`wuerstchen generate`: pictures for a prompt.

Progress goes to stderr; the paths of the pictures, and nothing else, go to stdout.
"""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli.checks import at_least
from wuerstchen.errors import ConfigError, SaveError, SizeError
from wuerstchen.geometry import check_size

if TYPE_CHECKING:
    from PIL.Image import Image

    from wuerstchen.arguments import Plan
    from wuerstchen.picture_file import Settings
    from wuerstchen.pipeline import Pipeline
    from wuerstchen.steps import OnStep

BATCH = 8
"""Pictures drawn at a time: more take more memory, and longer to the first one."""

EPILOG = """Examples:

[bold]wuerstchen generate "a red apple"[/bold]

[bold]wuerstchen generate "a sleepy cat" --num-images 4 --seed 7 --out cats/[/bold]

[bold]wuerstchen generate "a green hat" --model models/mine --steps 40 --out hat.png[/bold]"""


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help='What to draw; "" draws without text.')
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|OWNER/NAME",
            help="A model folder, or a model of the hub, which is downloaded. "
            "Without it: the model that comes with the package, and no network.",
        ),
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="What to lead away from.")
    ] = "",
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
    steps: Annotated[
        int | None,
        typer.Option(
            callback=at_least(1), metavar="N", help="Steps of Stage C, which reads the prompt."
        ),
    ] = None,
    decoder_steps: Annotated[
        int | None,
        typer.Option(
            callback=at_least(1), metavar="N", help="Steps of Stage B, which adds the details."
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How much the prompt counts in Stage C; up to 1: no guidance."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Pixels, multiples of 128, such as 512x768 or 512."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A .png file, which is replaced where it stands, or a folder (one that exists, "
            "or a name ending in /). Without it: a new file here, named after the prompt.",
        ),
    ] = None,
    metadata: Annotated[
        bool,
        typer.Option("--metadata/--no-metadata", help="Write the settings into the PNG."),
    ] = True,
) -> None:
    """Draw pictures for a prompt, and print their paths, one per line.

    Steps, guidance and size are the model's own where they are not given.
    """
    width, height = parse_size(size)
    check_target(out)

    from wuerstchen.arguments import plan, texts  # torch loads here, and not for --help
    from wuerstchen.picture_file import save_png

    texts(prompt, negative_prompt, None, num_images)  # before the tokenizer meets them
    pipeline = _open(model)
    planned = plan(
        pipeline.info,
        height=height,
        width=width,
        prior_num_inference_steps=steps,
        num_inference_steps=decoder_steps,
        prior_guidance_scale=guidance,
    )
    _warn(pipeline.cut_off(prompt))
    _warn(pipeline.cut_off(negative_prompt, "negative prompt"))
    for picture, settings in _draw(pipeline, planned, prompt, negative_prompt, num_images, seed):
        path = picture_path(out, prompt, settings.seed, several=num_images > 1)
        save_png(path, picture, settings if metadata else None)
        print(path, flush=True)


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """`512x768` to (512, 768), width first; `512` to a square; None to the model's own size."""
    if text is None:
        return None, None
    found = re.fullmatch(r"\s*(\d{1,9})(?:\s*[x×*]\s*(\d{1,9}))?\s*", text, re.IGNORECASE)
    if found is None:
        raise SizeError(f"--size must look like 512x768 (width x height), found {text!r}.")
    width = int(found[1])
    height = int(found[2] or found[1])
    check_size(height, width)
    return width, height


def check_target(out: str | None) -> None:
    """Raise an error where `--out` cannot be written, before the work is done and not after."""
    if out is not None and not _is_folder(out) and Path(out).suffix.lower() != ".png":
        raise ConfigError(
            f"--out must be a file that ends in .png, or a folder (one that exists, or a name "
            f"ending in /), found {out!r}."
        )
    folder = Path(out or ".") if out is None or _is_folder(out) else Path(out).parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SaveError(
            f"Expected a folder that may be written to, found {str(folder)!r}, which is "
            f"{'write-protected' if folder.is_dir() else 'a file'}; choose another --out."
        )


def picture_path(out: str | None, prompt: str, seed: int, *, several: bool) -> Path:
    """Where a picture goes. A file that `--out` does not name itself is never replaced."""
    from wuerstchen.picture_file import file_stem, unused

    if out is None or _is_folder(out):
        return unused(Path(out or ".") / f"{file_stem(prompt, seed)}.png")
    if several:
        return unused(Path(out).with_stem(f"{Path(out).stem}-{seed}"))
    return Path(out)


def _is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def _open(model: str | None) -> "Pipeline":
    import torch

    from wuerstchen.pipeline import Pipeline

    return Pipeline.from_pretrained(model).to("cuda" if torch.cuda.is_available() else "cpu")


def _warn(sentence: str) -> None:
    """Say now what the pipeline would say as a Python warning, with file and line, later."""
    from wuerstchen.pipeline import PromptWarning

    if sentence:
        print(f"Warning: {sentence}", file=sys.stderr)
        warnings.simplefilter("ignore", PromptWarning)


def _draw(
    pipeline: "Pipeline",
    plan: "Plan",
    prompt: str,
    negative_prompt: str,
    count: int,
    seed: int | None,
) -> "Iterator[tuple[Image, Settings]]":
    """Pictures and what made them, a batch at a time."""
    from wuerstchen.picture_file import Settings

    for done in range(0, count, BATCH):
        with _progress() as on_step:
            drawn = pipeline(
                prompt,
                height=plan.size[0],
                width=plan.size[1],
                prior_timesteps=plan.prior_times,
                prior_guidance_scale=plan.prior_guidance,
                decoder_timesteps=plan.decoder_times,
                decoder_guidance_scale=plan.decoder_guidance,
                negative_prompt=negative_prompt,
                num_images_per_prompt=min(BATCH, count - done),
                seed=seed,
                on_step=on_step,
            )
        for picture, its_seed in zip(drawn.images, drawn.seeds, strict=True):
            yield (
                picture,
                Settings(
                    prompt=prompt,
                    negative_prompt=negative_prompt,
                    seed=its_seed,
                    width=plan.size[1],
                    height=plan.size[0],
                    prior_timesteps=plan.prior_times,
                    prior_guidance_scale=plan.prior_guidance,
                    decoder_timesteps=plan.decoder_times,
                    decoder_guidance_scale=plan.decoder_guidance,
                    model=pipeline.info.name,
                ),
            )
        seed = drawn.seeds[-1] + 1


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
