"""What a call of the pipeline requests, checked and completed before any work."""

from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

from wuerstchen.diffusion import SAMPLERS, TIMES, Guidance, published_times
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError
from wuerstchen.geometry import check_size
from wuerstchen.inference.model_info import ModelInfo, times_fall
from wuerstchen.inference.sampling import SamplingPlan
from wuerstchen.inference.settings import StageSettings

T = TypeVar("T")

STAGES = {"prior": "Stage C", "decoder": "Stage B"}
"""Names of the stages in errors, for people who passed options and not arguments."""

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

MOST_STEPS = 10_000
"""More are a typing error; the schedule cannot resolve more in fp32 either."""


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """The size of the images, and how Stages C (prior) and B (decoder) are sampled."""

    size: tuple[int, int]
    """Height and width in pixels."""
    prior: SamplingPlan
    decoder: SamplingPlan


def plan_generation(
    info: ModelInfo,
    *,
    height: int | None = None,
    width: int | None = None,
    prior: StageSettings | None = None,
    decoder: StageSettings | None = None,
) -> GenerationPlan:
    """Complete what was requested with the defaults of the model.

    Raises SizeError and ConfigError for values that cannot work.
    """
    size = (_or(height, info.size), _or(width, info.size))
    check_size(*size)
    return GenerationPlan(
        size=size,
        prior=_plan("prior", (prior or StageSettings()).over(info.defaults.prior)),
        decoder=_plan("decoder", (decoder or StageSettings()).over(info.defaults.decoder)),
    )


def check_output_type(output_type: str) -> None:
    if output_type not in OUTPUT_TYPES:
        known = ", ".join(OUTPUT_TYPES)
        raise ConfigError(f"output_type must be one of {known}, found {output_type!r}.")


def _plan(stage: str, settings: StageSettings) -> SamplingPlan:
    name = STAGES[stage]
    sampler = _or(settings.sampler, "ddpm")
    if sampler not in SAMPLERS:
        known, found = ", ".join(SAMPLERS), printable(repr(sampler), 80)
        raise ConfigError(f"The sampler of {name} must be one of {known}, found {found}.")
    scale = _or(settings.guidance_scale, 1.0)
    if not isfinite(scale):
        raise ConfigError(f"The guidance of {name} must be a finite number, found {scale}.")
    guidance = Guidance(
        scale=scale,
        interval=_or(settings.guidance_interval, (0.0, 1.0)),
        rescale=_or(settings.guidance_rescale, 0.0),
        end=settings.guidance_end,
    )
    times = _times(stage, settings)
    if guidance.active and all(guidance.scale_at(t) is None for t in times):
        shown = printable(", ".join(f"{t:.3g}" for t in times[:-1]), 200)
        low, high = guidance.interval
        raise ConfigError(
            f"The guidance interval of {name} must contain at least one of its step "
            f"times, {shown}, found {low:g} to {high:g}; widen it, or set the guidance scale to 1."
        )
    return SamplingPlan(times=times, sampler=sampler, guidance=guidance)


def _times(stage: str, settings: StageSettings) -> list[float]:
    steps, spacing, published = settings.steps, settings.spacing, published_times()
    if settings.timesteps is not None:
        times = [float(t) for t in settings.timesteps]
        if steps is not None or spacing is not None:
            raise ConfigError(
                f"{stage}_timesteps name every step; leave out the stage's steps and spacing."
            )
        if not times_fall(times):
            raise ConfigError(
                f"{stage}_timesteps must fall from 1 (noise) to 0 (data), found "
                f"{printable(times, 200)}."
            )
        _check_steps(stage, len(times) - 1)
        return times
    if steps is None and spacing is None:
        return published
    if spacing == "published":
        if steps is not None and steps != len(published) - 1:
            raise ConfigError(
                f"The published list of times has {len(published) - 1} steps, found {steps} for "
                f"{STAGES[stage]}; leave the number out, or name another spacing."
            )
        return published
    if spacing is not None and spacing not in TIMES:
        raise ConfigError(
            f"The spacing of {STAGES[stage]} must be one of {', '.join(TIMES)}, published, "
            f"found {spacing!r}."
        )
    steps = len(published) - 1 if steps is None else steps
    _check_steps(stage, steps)
    return TIMES[_or(spacing, "time")](steps)


def _check_steps(stage: str, steps: int) -> None:
    if not 1 <= steps <= MOST_STEPS:
        bound = "at least 1" if steps < 1 else f"at most {MOST_STEPS}"
        raise ConfigError(f"The steps of {STAGES[stage]} must be {bound}, found {steps}.")


def _or(first: T | None, second: T) -> T:
    return second if first is None else first
