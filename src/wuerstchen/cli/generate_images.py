"""The images of one `wuerstchen generate`, a batch at a time, with their settings.

Progress goes to stderr.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from wuerstchen.cli.request import Request
from wuerstchen.inference.generation_plan import Plan
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.inference.png_metadata import Settings
from wuerstchen.inference.sampling import OnStep

BATCH = 8
"""Images drawn at a time: more take more memory, and longer to the first one."""


def draw(
    pipeline: Pipeline, plan: Plan, request: Request, loras: dict[str, float]
) -> Iterator[tuple[Image, Settings]]:
    """Images and what made them, a batch at a time."""
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
        for index, image in enumerate(drawn.images):
            if wanted is None or index == wanted:
                yield image, _settings(pipeline, plan, request, loras, drawn.seeds, index)


def _batches(request: Request) -> Iterator[tuple[int | None, int, int | None]]:
    """First seed, images, and the one that is wanted where it is not all of them.

    What follows the first batch has the seeds that follow, whatever the first one was.
    """
    if request.again is not None and request.again.batch is not None:
        first, count = request.again.batch
        yield first, count, request.again.seed - first
        return
    for done in range(0, request.count, BATCH):
        seed = request.seed if done == 0 else None
        yield seed, min(BATCH, request.count - done), None


def _settings(
    pipeline: Pipeline,
    plan: Plan,
    request: Request,
    loras: dict[str, float],
    seeds: list[int],
    index: int,
) -> Settings:
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
def _progress() -> Iterator[OnStep]:
    """A bar on stderr for each stage, in the order in which they start."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Left as it is, stdout carries the paths also where stderr is a terminal.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        tasks: dict[str, TaskID] = {}

        def on_step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield on_step
