"""What one `wuerstchen generate` is to draw, from its options and from an earlier image."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from wuerstchen.errors import ConfigError, SizeError
from wuerstchen.geometry import check_size
from wuerstchen.inference.model_info import StageSettings
from wuerstchen.inference.png_metadata import Dtype, Settings, read_settings

DTYPES: tuple[Dtype, ...] = get_args(Dtype)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything but the model itself."""

    prompt: str
    negative_prompt: str
    width: int | None
    height: int | None
    prior: StageSettings
    decoder: StageSettings
    seed: int | None
    count: int
    dtype: Dtype
    again: Settings | None = None
    """The image that is made again."""


def from_options(
    prompt: str | None,
    negative_prompt: str | None,
    size: str | None,
    prior: StageSettings,
    decoder: StageSettings,
    seed: int | None,
    count: int,
    dtype: str | None,
    image: Path | None,
) -> Request:
    """None stands for an option that was not given.

    image  whose settings stand where an option was not given

    Raises ConfigError and SizeError for what cannot work.
    """
    kind = parse_dtype(dtype)
    width, height = parse_size(size)
    if image is None:
        if prompt is None:
            raise ConfigError('Expected a PROMPT, or --from IMAGE; "" draws without text.')
        return Request(
            prompt=prompt,
            negative_prompt=negative_prompt or "",
            width=width,
            height=height,
            prior=prior,
            decoder=decoder,
            seed=seed,
            count=count,
            dtype=kind or DTYPES[0],
        )
    found = read_settings(image)
    return Request(
        prompt=found.prompt if prompt is None else prompt,
        negative_prompt=found.negative_prompt if negative_prompt is None else negative_prompt,
        width=width or found.width,
        height=height or found.height,
        prior=_over(_prior(found), prior),
        decoder=_over(_decoder(found), decoder),
        seed=found.seed if seed is None else seed,
        count=count,
        dtype=kind or found.dtype,
        again=found if seed is None and count == 1 else None,
    )


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


def parse_dtype(text: str | None) -> Dtype | None:
    """The name of a number format."""
    if text is None:
        return None
    for known in DTYPES:
        if text == known:
            return known
    raise ConfigError(f"--dtype must be one of {', '.join(DTYPES)}, found {text!r}.")


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """`0.3:1` to (0.3, 1.0)."""
    if text is None:
        return None
    try:
        low, high = (float(word) for word in text.split(":"))
    except ValueError:
        raise ConfigError(
            f"--guidance-interval must be two times such as 0.3:1, found {text!r}."
        ) from None
    return low, high


def _prior(found: Settings) -> StageSettings:
    return StageSettings(
        timesteps=found.prior_timesteps,
        sampler=found.prior_sampler,
        guidance_scale=found.prior_guidance_scale,
        guidance_interval=found.prior_guidance_interval,
        guidance_rescale=found.prior_guidance_rescale,
        guidance_end=found.prior_guidance_end,
    )


def _decoder(found: Settings) -> StageSettings:
    return StageSettings(
        timesteps=found.decoder_timesteps,
        sampler=found.decoder_sampler,
        guidance_scale=found.decoder_guidance_scale,
    )


def _over(base: StageSettings, given: StageSettings) -> StageSettings:
    """`base` with what was given in its place; a number of steps replaces a list of times."""
    changes = {name: value for name, value in vars(given).items() if value is not None}
    if given.steps is not None or given.spacing is not None:
        changes["timesteps"] = None
        if given.steps is None and given.spacing != "published" and base.timesteps is not None:
            changes["steps"] = len(base.timesteps) - 1
    return replace(base, **changes)
