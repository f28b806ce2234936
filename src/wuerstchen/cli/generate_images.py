"""The images of one `wuerstchen generate`, a batch at a time; progress goes to stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL.Image import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from wuerstchen.cli.request import Request
from wuerstchen.inference.edit import Edit
from wuerstchen.inference.generation_plan import GenerationPlan
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.inference.sampling import OnStep
from wuerstchen.inference.settings import GenerationSettings
from wuerstchen.signals import ending_at_once
from wuerstchen.terminal import progress_console

BATCH = 8
"""Images generated at a time: more take more memory, and longer to the first one."""


def generate_images(
    pipeline: Pipeline,
    plan: GenerationPlan,
    request: Request,
    loras: dict[str, float],
    edit: Edit | None = None,
) -> Iterator[tuple[Image, GenerationSettings]]:
    """Images with their settings, a batch at a time."""
    height, width = plan.size
    stages = {"prior": plan.prior.settings, "decoder": plan.decoder.settings}
    made_by = {"height": height, "width": width, "model": pipeline.info.name, "loras": loras}
    settings = request.settings.model_copy(update=made_by | stages)
    last: int | None = None
    for first, count, only in _batches(request):
        seed = first if last is None else last + 1
        texts = (settings.prompt, settings.negative_prompt)
        with _progress() as on_step, ending_at_once():
            images, seeds = pipeline.generate(
                plan, *texts, count=count, seed=seed, edit=edit, on_step=on_step
            )
        last, start = seeds[-1], seeds[0]
        assert last is not None and start is not None  # no generator was passed
        batch = (start, len(seeds))
        for index, (of_image, image) in enumerate(zip(seeds, images, strict=True)):
            if only is None or index == only:
                assert isinstance(image, Image)
                yield image, settings.model_copy(update={"seed": of_image, "batch": batch})


def _batches(request: Request) -> Iterator[tuple[int | None, int, int | None]]:
    """First seed, number of images, and the index of the requested one if it is not all.

    Later batches have the seeds that follow those of the first, whatever it was.
    """
    if request.again is not None and request.again.batch is not None:
        first, count = request.again.batch
        assert request.again.seed is not None
        yield first, count, request.again.seed - first
        return
    for done in range(0, request.count, BATCH):
        seed = request.settings.seed if done == 0 else None
        yield seed, min(BATCH, request.count - done), None


@contextmanager
def _progress() -> Iterator[OnStep]:
    """A bar on stderr for each stage, in the order in which they start."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Not redirected, so that stdout has the paths even if stderr is a terminal.
    with Progress(*columns, console=progress_console(), redirect_stdout=False) as progress:
        tasks: dict[str, TaskID] = {}

        def on_step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield on_step
