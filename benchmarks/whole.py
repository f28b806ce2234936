"""Whole images by both pipelines, text and sampler included, from the same noise.

The networks are of any size, with random weights. The text encoders are small ones of the right
width, the same in both pipelines, so that nearly all time is spent in the three stages.
"""

import gc
from collections.abc import Callable, Mapping
from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn

from benchmarks.jobs import Job
from benchmarks.networks import STAGES, TINY, Sizes, pair, quiet, single
from benchmarks.records import Times, load
from benchmarks.schedules import SIXTY, TWENTY_NINE, Schedule, our_defaults
from benchmarks.stages import CPU, Place, keep_difference
from benchmarks.timing import Work, alternate, working
from wuerstchen.config import TextConfig
from wuerstchen.diffusion import published_times, uniform_times
from wuerstchen.inference.model_info import ModelInfo
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, small_text_encoder

PROMPT = "a red fox in the snow"
SEED = 3
GUIDANCE = 4.0
SHORT = Schedule("8 + 5", 8, 0, 5)
"""Few steps, in which rounding errors cannot grow much."""
WHOLE_SIDE = 512
"""Side at which whole images of the published size are generated on request."""

Key = tuple[str, str]
"""System, and eager or compiled."""
Networks = dict[str, nn.Module]
Texts = tuple[TextEncoder, TextEncoder]


class Settings(TypedDict, total=False):
    """Sampling arguments of our pipeline."""

    prior_timesteps: list[float]
    decoder_timesteps: list[float]
    prior_guidance_scale: float
    prior_guidance_interval: tuple[float, float]
    prior_guidance_rescale: float
    decoder_guidance_scale: float
    prior_sampler: str
    decoder_sampler: str


class Generate(Protocol):
    """A pipeline with fixed settings: latents or pixels for the prompt."""

    def __call__(self, schedule: Schedule, side: int, form: str, batch: int = 1) -> Tensor: ...


def measure_whole(job: Job, *, real: bool) -> None:
    """How much the latents differ; with `real`, also images of the published size.

    Tiny networks show the difference over a whole run in seconds.
    """
    tiny = both_pipelines(TINY)
    for side in (128, 256):
        for schedule in (SHORT, TWENTY_NINE, SIXTY):
            _compare(job, "tiny", side, schedule, tiny)
    if not real:
        return
    pipelines = both_pipelines(job.sizes)
    side = min(WHOLE_SIDE, *job.sides)
    for schedule in (TWENTY_NINE, SIXTY, our_defaults()):
        if not job.done("times", part="whole", side=side, call=call_name(schedule)):
            if not schedule.own:
                _compare(job, job.sizes.name, side, schedule, pipelines)
            eager = {(system, "eager"): generate for system, generate in pipelines.items()}
            time_images(job, eager, schedule, side, CPU._replace(warm=0), 1)  # all ran before


def time_images(
    job: Job,
    pipelines: Mapping[Key, Generate],
    schedule: Schedule,
    side: int,
    place: Place,
    batch: int,
) -> None:
    """Generate in turns and record the seconds. With our defaults: each with its own."""

    def work(generate: Generate) -> Work:
        return lambda: generate(schedule, side, "pt", batch)

    before = load()
    works = {key: work(generate) for key, generate in pipelines.items()}
    if place.compiled:
        works = working(works, place.clock, place.warm)
    warm = 0 if place.compiled else place.warm
    timed = alternate(works, job.repeats, place.clock, warm)
    for (system, mode), seconds in timed.items():
        job.keep(
            Times(
                system=system,
                part="whole",
                call=call_name(schedule),
                side=side,
                rows=batch,
                device=place.device,
                dtype=place.dtype,
                mode=mode,
                seconds=seconds,
                load=before,
            )
        )


def call_name(schedule: Schedule) -> str:
    """The name of the times of a whole image."""
    return "defaults" if schedule.own else schedule.name


def both_pipelines(sizes: Sizes) -> dict[str, Generate]:
    """Both pipelines with the same weights."""
    pairs = {part: pair(part, sizes) for part in STAGES}
    texts = text_encoders(sizes)
    ours: Networks = {part: found["ours"] for part, found in pairs.items()}
    theirs: Networks = {part: found["diffusers"] for part, found in pairs.items()}
    return {"ours": our_pipeline(ours, texts), "diffusers": their_pipeline(theirs, texts)}


def pipeline_alone(system: str, sizes: Sizes) -> tuple[Generate, Networks]:
    """One pipeline with weights of its own, and its networks."""
    networks: Networks = {part: single(system, part, sizes) for part in STAGES}
    gc.collect()
    make: Callable[[Networks, Texts], Generate] = (
        our_pipeline if system == "ours" else their_pipeline
    )
    return make(networks, text_encoders(sizes)), networks


def our_pipeline(networks: Networks, texts: Texts, *, compiled: bool = False) -> Generate:
    """Ours; with a schedule of diffusers, also its sampler, timesteps and guidance."""
    a, b, c = networks["stage_a"], networks["stage_b"], networks["stage_c"]
    assert isinstance(a, StageA) and isinstance(b, StageB) and isinstance(c, StageC)
    pipeline = Pipeline(a, b, c, *texts, ModelInfo(name="random"))
    if compiled:
        pipeline.compile()

    def generate(schedule: Schedule, side: int, form: str, batch: int = 1) -> Tensor:
        # With schedules of diffusers, nothing is left to our defaults.
        how: Settings = {} if schedule.own else _like_diffusers(schedule)
        images = pipeline(
            PROMPT,
            height=side,
            width=side,
            num_images_per_prompt=batch,
            output_type="latent" if form == "latent" else "pt",
            seed=SEED,
            **how,
        ).images
        assert isinstance(images, Tensor)
        return images

    return generate


def their_pipeline(networks: Networks, texts: Texts) -> Generate:
    """diffusers' combined pipeline."""
    from diffusers import DDPMWuerstchenScheduler
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenCombinedPipeline

    text_c, text_b = texts
    quiet()
    pipeline = WuerstchenCombinedPipeline(
        tokenizer=text_b.tokenizer,
        text_encoder=text_b.model,
        decoder=networks["stage_b"],
        scheduler=DDPMWuerstchenScheduler(),
        vqgan=networks["stage_a"],
        prior_tokenizer=text_c.tokenizer,
        prior_text_encoder=text_c.model,
        prior_prior=networks["stage_c"],
        prior_scheduler=DDPMWuerstchenScheduler(),
    )
    for each in (pipeline.prior_pipe, pipeline.decoder_pipe):
        each.set_progress_bar_config(disable=True)

    def generate(schedule: Schedule, side: int, form: str, batch: int = 1) -> Tensor:
        schedule = SIXTY if schedule.own else schedule  # its own defaults
        images: Tensor = pipeline(
            PROMPT,
            height=side,
            width=side,
            prior_timesteps=_times(schedule),
            num_inference_steps=schedule.decoder,
            prior_guidance_scale=GUIDANCE,
            decoder_guidance_scale=0.0,
            num_images_per_prompt=batch,
            output_type=form,
            generator=[torch.Generator().manual_seed(SEED + k) for k in range(batch)],
        ).images
        return images

    return generate


def text_encoders(sizes: Sizes, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Texts:
    """For Stage C and Stage B: one block each, too small to count."""

    def encoder(width: int) -> TextEncoder:
        config = TextConfig(vocab_size=600, max_length=sizes.tokens, width=width, depth=1, heads=2)
        made = small_text_encoder(config, [PROMPT]).eval()
        return made.to(device=device, dtype=dtype)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return encoder(sizes.stage_c.text_width), encoder(sizes.stage_b.text_width)


def _like_diffusers(schedule: Schedule) -> Settings:
    return {
        "prior_timesteps": _times(schedule),
        "decoder_timesteps": uniform_times(schedule.decoder),
        "prior_guidance_scale": GUIDANCE,
        "prior_guidance_interval": (0.0, 1.0),
        "prior_guidance_rescale": 0.0,
        "decoder_guidance_scale": 0.0,
        "prior_sampler": "ddpm",
        "decoder_sampler": "ddpm",
    }


def _times(schedule: Schedule) -> list[float]:
    return published_times() if schedule == TWENTY_NINE else uniform_times(schedule.guided)


def _compare(
    job: Job, sizes: str, side: int, schedule: Schedule, pipelines: Mapping[str, Generate]
) -> None:
    outputs = {system: generate(schedule, side, "latent") for system, generate in pipelines.items()}
    keep_difference(job, f"latents after {schedule.name} steps, {sizes} networks", side, outputs)
