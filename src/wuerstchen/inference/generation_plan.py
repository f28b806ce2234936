"""What a caller of the pipeline asked for, checked and completed before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

from torch import Tensor

from wuerstchen.diffusion import SAMPLERS, TIMES, Guidance, published_times
from wuerstchen.errors import ConfigError
from wuerstchen.geometry import check_size
from wuerstchen.inference.model_info import ModelInfo, StageSettings, times_fall
from wuerstchen.inference.sampling import Walk

T = TypeVar("T")

STAGES = {"prior": "Stage C", "decoder": "Stage B"}
"""What stages are called in errors, for people who named options and not arguments."""

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

MOST_STEPS = 10_000
"""More are a slip of the finger; the schedule has no more room for them in fp32 either."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Size of the images, and how the two stages go."""

    size: tuple[int, int]
    """Height and width in pixels."""
    prior: Walk
    """Of Stage C."""
    decoder: Walk
    """Of Stage B."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A wanted and an unwanted text for each image."""

    wanted: list[str]
    unwanted: list[str]

    @property
    def count(self) -> int:
        return len(self.wanted)


def plan(
    info: ModelInfo,
    *,
    height: int | None = None,
    width: int | None = None,
    prior: StageSettings | None = None,
    decoder: StageSettings | None = None,
) -> Plan:
    """What was asked for, completed by what the model says of itself.

    Raises SizeError and ConfigError for values that cannot work.
    """
    size = (_or(height, info.size), _or(width, info.size))
    check_size(*size)
    return Plan(
        size=size,
        prior=_walk("prior", prior or StageSettings(), info.defaults.prior),
        decoder=_walk("decoder", decoder or StageSettings(), info.defaults.decoder),
    )


def texts(
    prompt: str | Sequence[str] | None,
    negative_prompt: str | Sequence[str] | None,
    prompt_embeds: Tensor | None,
    per_prompt: int,
) -> Texts:
    """One text for each image; the images of the first prompt come first.

    An empty text stands where there is no prompt (beside `prompt_embeds`) or no negative one.
    """
    if per_prompt < 1:
        raise ConfigError(f"num_images_per_prompt must be at least 1, found {per_prompt}.")
    if prompt is None and prompt_embeds is None:
        raise ConfigError(
            'Expected a prompt or prompt_embeds, found neither; prompt="" draws without text.'
        )
    if prompt is None:
        prompt = [""] * (0 if prompt_embeds is None else len(prompt_embeds))
    wanted = _list(prompt)
    if not wanted:
        raise ConfigError("Expected at least one prompt, found an empty list.")
    if prompt_embeds is not None and len(prompt_embeds) != len(wanted):
        raise ConfigError(
            f"prompt_embeds must have a row for each of the {len(wanted)} prompts, "
            f"found {len(prompt_embeds)}."
        )
    if negative_prompt is None or isinstance(negative_prompt, str):
        negative_prompt = [negative_prompt or ""] * len(wanted)
    negative_prompt = _list(negative_prompt)
    if len(negative_prompt) != len(wanted):
        raise ConfigError(
            f"negative_prompt must be one text, or a list of one for each of the {len(wanted)} "
            f"prompts, found {len(negative_prompt)}."
        )
    return Texts(
        wanted=[text for text in wanted for _ in range(per_prompt)],
        unwanted=[text for text in negative_prompt for _ in range(per_prompt)],
    )


def check_finite(**tensors: Tensor | None) -> None:
    """Raise ConfigError for a tensor, called by its argument's name, with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise ConfigError(f"{name} must hold finite numbers, found NaN or infinity.")


def check_output_type(output_type: str) -> None:
    if output_type not in OUTPUT_TYPES:
        raise ConfigError(
            f"output_type must be one of {', '.join(OUTPUT_TYPES)}, found {output_type!r}."
        )


def _walk(stage: str, asked: StageSettings, own: StageSettings) -> Walk:
    sampler = _or(_or(asked.sampler, own.sampler), "ddpm")
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"The sampler of {STAGES[stage]} must be one of {', '.join(SAMPLERS)}, "
            f"found {sampler!r}."
        )
    scale = _or(_or(asked.guidance_scale, own.guidance_scale), 1.0)
    if not isfinite(scale):
        raise ConfigError(
            f"The guidance of {STAGES[stage]} must be a finite number, found {scale}."
        )
    guidance = Guidance(
        scale=scale,
        interval=_or(_or(asked.guidance_interval, own.guidance_interval), (0.0, 1.0)),
        rescale=_or(_or(asked.guidance_rescale, own.guidance_rescale), 0.0),
        end=_or(asked.guidance_end, own.guidance_end),
    )
    times = _times(stage, asked, own)
    if guidance.active and all(guidance.scale_at(t) is None for t in times):
        shown = ", ".join(f"{t:.3g}" for t in times[:-1])
        low, high = guidance.interval
        raise ConfigError(
            f"The guidance interval of {STAGES[stage]} must hold one of the times of its steps, "
            f"{shown}, found {low:g} to {high:g}; widen it, or set the guidance scale to 1."
        )
    return Walk(times=times, sampler=sampler, guidance=guidance)


def _times(stage: str, asked: StageSettings, own: StageSettings) -> list[float]:
    """Times that were asked for; else steps and spacing; else what the model says."""
    if asked.timesteps is not None:
        times = [float(t) for t in asked.timesteps]
        if asked.steps is not None or asked.spacing is not None:
            raise ConfigError(
                f"{stage}_timesteps name every step already; leave out the number of steps and "
                "the spacing of the same stage."
            )
        if not times_fall(times):
            raise ConfigError(
                f"{stage}_timesteps must be numbers that fall from 1 (noise) to 0 (data), "
                f"found {times}."
            )
        return times
    if asked.steps is None and asked.spacing is None and own.timesteps is not None:
        return list(own.timesteps)
    spacing, steps = _or(asked.spacing, own.spacing), _or(asked.steps, own.steps)
    if spacing == "published":
        return _published(stage, asked.steps)
    if steps is None and asked.spacing is None:
        return published_times()
    if spacing is not None and spacing not in TIMES:
        raise ConfigError(
            f"The spacing of {STAGES[stage]} must be one of {', '.join(TIMES)}, published, "
            f"found {spacing!r}."
        )
    steps = len(published_times()) - 1 if steps is None else steps
    if not 1 <= steps <= MOST_STEPS:
        bound = "at least 1" if steps < 1 else f"at most {MOST_STEPS}"
        raise ConfigError(f"The steps of {STAGES[stage]} must be {bound}, found {steps}.")
    return TIMES[_or(spacing, "time")](steps)


def _published(stage: str, steps: int | None) -> list[float]:
    times = published_times()
    if steps is not None and steps != len(times) - 1:
        raise ConfigError(
            f"The published list of times has {len(times) - 1} steps, found {steps} for "
            f"{STAGES[stage]}; leave the number out, or name another spacing."
        )
    return times


def _list(texts: str | Sequence[str]) -> list[str]:
    found = [texts] if isinstance(texts, str) else list(texts)
    for text in found:
        if not isinstance(text, str):
            raise ConfigError(f"A prompt must be text, found {type(text).__name__}.")
        if not _is_unicode(text):
            raise ConfigError(f"A prompt must be UTF-8 text, found bytes that are not: {text!a}.")
    return found


def _is_unicode(text: str) -> bool:
    """Whether the text is free of the stand-ins that Python keeps for bytes it cannot decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _or(first: T | None, second: T) -> T:
    return second if first is None else first
