"""Whole images by both pipelines, text and sampler included, from the same noise.

The networks are of any size, with random weights. The text encoders are small ones of the right
width, the same in both pipelines, so that the images take the time of the three stages.
"""

import gc
from collections.abc import Callable
from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn

from benchmarks.jobs import Job
from benchmarks.networks import STAGES, TINY, Sizes, pair, quiet, single
from benchmarks.recipes import SIXTY, TWENTY_NINE, Recipe, our_defaults
from benchmarks.records import Difference, Times, load
from benchmarks.stages import largest_difference
from benchmarks.timing import Clock, Work, alternate, wall
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
SHORT = Recipe("8 + 5", 8, 0, 5)
"""A schedule in which rounding errors have little time to grow."""
WHOLE_SIDE = 512
"""Side at which whole images of the published size are drawn on request."""

Key = tuple[str, str]
"""System, and eager or compiled."""
Networks = dict[str, nn.Module]
Texts = tuple[TextEncoder, TextEncoder]


class Settings(TypedDict, total=False):
    """Arguments of our pipeline that say how it goes from noise to data."""

    prior_timesteps: list[float]
    decoder_timesteps: list[float]
    prior_guidance_scale: float
    prior_guidance_interval: tuple[float, float]
    prior_guidance_rescale: float
    decoder_guidance_scale: float
    prior_sampler: str
    decoder_sampler: str


class Draws(Protocol):
    """A pipeline with fixed settings: latents or pixels of the prompt."""

    def __call__(self, recipe: Recipe, side: int, form: str, batch: int = 1) -> Tensor: ...


def measure_whole(job: Job, *, real: bool) -> None:
    """How far the latents of both differ; with `real`, also images of the published size.

    Tiny networks show the difference of the whole way in seconds.
    """
    tiny = both(TINY)
    for side in (128, 256):
        for recipe in (SHORT, TWENTY_NINE, SIXTY):
            _compare(job, "tiny", side, recipe, tiny)
    if not real:
        return
    draws = both(job.sizes)
    side = min(WHOLE_SIDE, *job.sides)
    for recipe in (TWENTY_NINE, SIXTY, our_defaults()):
        if not job.done("times", part="whole", side=side, call=call_of(recipe)):
            if not recipe.own:
                _compare(job, job.sizes.name, side, recipe, draws)
            eager: dict[Key, Draws] = {(system, "eager"): draw for system, draw in draws.items()}
            time_images(job, eager, recipe, side, warm=0)  # all that runs has run before


def time_images(
    job: Job,
    draws: dict[Key, Draws],
    recipe: Recipe,
    side: int,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    batch: int = 1,
    clock: Clock = wall,
    warm: int = 1,
) -> None:
    """Draw in turns and write down the seconds. By our defaults: each by its own."""
    before = load()

    def work(draw: Draws) -> Work:
        return lambda: draw(recipe, side, "pt", batch)

    works = {key: work(draw) for key, draw in draws.items()}
    for (system, mode), seconds in alternate(works, job.repeats, clock, warm).items():
        job.keep(
            Times(
                system=system,
                part="whole",
                call=call_of(recipe),
                side=side,
                rows=batch,
                device=device,
                dtype=dtype,
                mode=mode,
                seconds=seconds,
                load=before,
            )
        )


def call_of(recipe: Recipe) -> str:
    """What the times of a whole image are called."""
    return "defaults" if recipe.own else recipe.name


def both(sizes: Sizes, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Draws]:
    """Both pipelines with the same weights."""
    pairs = {part: pair(part, sizes, device, dtype) for part in STAGES}
    texts = text_encoders(sizes, device, dtype)
    ours: Networks = {part: found["ours"] for part, found in pairs.items()}
    theirs: Networks = {part: found["diffusers"] for part, found in pairs.items()}
    return {"ours": our_pipeline(ours, texts), "diffusers": their_pipeline(theirs, texts)}


def alone(system: str, sizes: Sizes) -> tuple[Draws, Networks]:
    """One pipeline with weights of its own, and its networks."""
    networks: Networks = {part: single(system, part, sizes) for part in STAGES}
    gc.collect()
    make: Callable[[Networks, Texts], Draws] = our_pipeline if system == "ours" else their_pipeline
    return make(networks, text_encoders(sizes)), networks


def our_pipeline(networks: Networks, texts: Texts, *, compiled: bool = False) -> Draws:
    """Ours: by a recipe of diffusers with its sampler, its times and its guidance."""
    a, b, c = networks["stage_a"], networks["stage_b"], networks["stage_c"]
    assert isinstance(a, StageA) and isinstance(b, StageB) and isinstance(c, StageC)
    pipeline = Pipeline(a, b, c, *texts, ModelInfo(name="random"))
    if compiled:
        pipeline.compile()

    def draw(recipe: Recipe, side: int, form: str, batch: int = 1) -> Tensor:
        # Recipes that are not its own name everything that its own defaults could change.
        how: Settings = {} if recipe.own else _like_diffusers(recipe)
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

    return draw


def their_pipeline(networks: Networks, texts: Texts) -> Draws:
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

    def draw(recipe: Recipe, side: int, form: str, batch: int = 1) -> Tensor:
        recipe = SIXTY if recipe.own else recipe  # its own defaults
        images: Tensor = pipeline(
            PROMPT,
            height=side,
            width=side,
            prior_timesteps=_times(recipe),
            num_inference_steps=recipe.decoder,
            prior_guidance_scale=GUIDANCE,
            decoder_guidance_scale=0.0,
            num_images_per_prompt=batch,
            output_type=form,
            generator=[torch.Generator().manual_seed(SEED + k) for k in range(batch)],
        ).images
        return images

    return draw


def text_encoders(sizes: Sizes, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Texts:
    """Of Stage C and of Stage B: one block each, whose work does not count."""

    def encoder(width: int) -> TextEncoder:
        config = TextConfig(vocab_size=600, max_length=sizes.tokens, width=width, depth=1, heads=2)
        made = small_text_encoder(config, [PROMPT]).eval()
        return made.to(device=device, dtype=dtype)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return encoder(sizes.stage_c.text_width), encoder(sizes.stage_b.text_width)


def _like_diffusers(recipe: Recipe) -> Settings:
    return {
        "prior_timesteps": _times(recipe),
        "decoder_timesteps": uniform_times(recipe.decoder),
        "prior_guidance_scale": GUIDANCE,
        "prior_guidance_interval": (0.0, 1.0),
        "prior_guidance_rescale": 0.0,
        "decoder_guidance_scale": 0.0,
        "prior_sampler": "ddpm",
        "decoder_sampler": "ddpm",
    }


def _times(recipe: Recipe) -> list[float]:
    return published_times() if recipe == TWENTY_NINE else uniform_times(recipe.guided)


def _compare(job: Job, sizes: str, side: int, recipe: Recipe, draws: dict[str, Draws]) -> None:
    found = {system: draw(recipe, side, "latent") for system, draw in draws.items()}
    largest, scale = largest_difference(found["ours"], found["diffusers"])
    what = f"latents after {recipe.name} steps, {sizes} networks"
    job.keep(Difference(what=what, side=side, largest=largest, scale=scale))
