"""What a caller of the pipeline asked for, checked and completed before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import TypeVar

from torch import Tensor

from wuerstchen.diffusion import published_times, uniform_times
from wuerstchen.errors import ConfigError
from wuerstchen.geometry import check_size
from wuerstchen.model_folder import ModelInfo

T = TypeVar("T")

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes, times and scales of one call."""

    size: tuple[int, int]
    """Height and width in pixels."""
    prior_times: list[float]
    prior_guidance: float
    decoder_times: list[float]
    decoder_guidance: float


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A wanted and an unwanted text for each picture."""

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
    prior_num_inference_steps: int | None = None,
    prior_timesteps: Sequence[float] | None = None,
    prior_guidance_scale: float | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    decoder_timesteps: Sequence[float] | None = None,
    decoder_guidance_scale: float | None = None,
) -> Plan:
    """The arguments of the pipeline by their names; None stands for the model's own.

    Raises SizeError and ConfigError for values that cannot work.
    """
    if prior_guidance_scale is not None and guidance_scale is not None:
        raise ConfigError(
            "guidance_scale is another name of prior_guidance_scale; give one of them, not both."
        )
    own = info.defaults
    if decoder_timesteps is None and num_inference_steps is None:
        decoder_timesteps = own.decoder_timesteps
    size = (_or(height, info.size), _or(width, info.size))
    check_size(*size)
    prior_guidance = _or(_or(prior_guidance_scale, guidance_scale), own.prior_guidance_scale)
    decoder_guidance = _or(decoder_guidance_scale, own.decoder_guidance_scale)
    for name, scale in (("prior", prior_guidance), ("decoder", decoder_guidance)):
        if not isfinite(scale):
            raise ConfigError(f"The guidance of the {name} must be a finite number, found {scale}.")
    return Plan(
        size=size,
        prior_times=_times(
            "prior", prior_timesteps, _or(prior_num_inference_steps, own.prior_num_inference_steps)
        ),
        prior_guidance=prior_guidance,
        decoder_times=_times(
            "decoder", decoder_timesteps, _or(num_inference_steps, own.num_inference_steps)
        ),
        decoder_guidance=decoder_guidance,
    )


def texts(
    prompt: str | Sequence[str] | None,
    negative_prompt: str | Sequence[str] | None,
    prompt_embeds: Tensor | None,
    per_prompt: int,
) -> Texts:
    """One text for each picture; the pictures of the first prompt come first.

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


def _times(stage: str, given: Sequence[float] | None, steps: int | None) -> list[float]:
    if given is not None:
        times = [float(t) for t in given]
        falling = all(t > s for t, s in pairwise(times))
        if len(times) < 2 or not falling or times[0] > 1 or times[-1] < 0:
            raise ConfigError(
                f"{stage}_timesteps must be at least two falling times between 1 (noise) and "
                f"0 (data), found {times}."
            )
        return times
    if steps is None:
        return published_times()
    if steps < 1:
        raise ConfigError(f"The steps of the {stage} must be at least 1, found {steps}.")
    return uniform_times(steps)


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
