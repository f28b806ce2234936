"""The settings that one `wuerstchen generate` requests, from options and from an earlier image."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from wuerstchen.errors import ConfigError, SizeError
from wuerstchen.geometry import check_size
from wuerstchen.inference.png_metadata import read_settings
from wuerstchen.inference.settings import Dtype, EditSettings, GenerationSettings, StageSettings

DTYPES: tuple[Dtype, ...] = get_args(Dtype)


@dataclass(frozen=True, kw_only=True)
class Request:
    settings: GenerationSettings
    count: int
    again: GenerationSettings | None = None
    """The settings of the image to generate again."""

    def with_edit(self, edit: EditSettings) -> "Request":
        return replace(self, settings=self.settings.model_copy(update={"edit": edit}))


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
    """None stands for an option that was not given, whose setting `image` provides.

    Raises ConfigError and SizeError for what cannot work.
    """
    width, height = parse_size(size)
    options = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "width": width,
        "height": height,
        "dtype": parse_dtype(dtype),
    }
    given = {name: value for name, value in options.items() if value is not None}
    if image is None:
        if prompt is None:
            raise ConfigError(
                'Expected a PROMPT, --image or --from IMAGE; "" generates without text.'
            )
        unset = {"negative_prompt": "", "seed": None, "width": None, "height": None}
        stages = {"prior": prior, "decoder": decoder}
        settings = GenerationSettings.model_validate({**unset, **given, **stages})
        return Request(settings=settings, count=count)
    found = read_settings(image)
    stages = {"prior": prior.over(found.prior), "decoder": decoder.over(found.decoder)}
    again = found if seed is None and count == 1 else None
    settings = found.model_copy(update={**given, **stages})
    return Request(settings=settings, count=count, again=again)


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """`512x768` to (512, 768), width first; `512` to a square; None to the model's own size."""
    if text is None:
        return None, None
    found = re.fullmatch(r"\s*(\d{1,9})(?:\s*[x×*]\s*(\d{1,9}))?\s*", text, re.IGNORECASE)
    if found is None:
        raise SizeError(f"--size must look like 512x768 (width x height), found {text!r}.")
    width, height = int(found[1]), int(found[2] or found[1])
    check_size(height, width)
    return width, height


def parse_dtype(text: str | None) -> Dtype | None:
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
        low, high = (float(number) for number in text.split(":"))
    except ValueError:
        message = f"--guidance-interval must be two times such as 0.3:1, found {text!r}."
        raise ConfigError(message) from None
    return low, high
