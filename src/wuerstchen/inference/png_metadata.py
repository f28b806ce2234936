"""Images on disk: PNG files that say how they were made.

Two text chunks: `parameters`, in the form of AUTOMATIC1111's web UI that most viewers read, and
`wuerstchen`, JSON with the settings of all three stages. Neither holds a path of the machine.
"""

import io
import json
import re
from pathlib import Path
from typing import Literal, Self

from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wuerstchen import __version__
from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ConfigError

PARAMETERS, OWN = "parameters", "wuerstchen"
"""Keys of the two chunks."""

Dtype = Literal["fp32", "bf16", "fp16"]
"""Number formats that can be asked for."""

NAME_LENGTH = 60
"""Characters of a prompt that enter a file name."""


class Settings(BaseModel):
    """What made an image; names are those of the pipeline's arguments."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, protected_namespaces=())

    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    prior_timesteps: list[float]
    prior_sampler: str = "ddpm"
    prior_guidance_scale: float
    prior_guidance_interval: tuple[float, float] = (0.0, 1.0)
    prior_guidance_rescale: float = 0.0
    prior_guidance_end: float | None = None
    decoder_timesteps: list[float]
    decoder_sampler: str = "ddpm"
    decoder_guidance_scale: float
    model: str
    dtype: Dtype = "fp32"
    """Number format that was asked for."""
    loras: dict[str, float] = {}
    """File name, without its folder, and weight of each LoRA."""
    batch: tuple[int, int] | None = None
    """Seed of the first image that was drawn at the same time, and how many there were.

    Rounding differs between one image at a time and several.
    """
    version: str = ""
    """Of this package."""

    @model_validator(mode="after")
    def _is_in_its_batch(self) -> Self:
        first, count = self.batch or (self.seed, 1)
        if not first <= self.seed < first + count:
            raise ValueError(f"seed {self.seed} is not of the batch {first}, {count}")
        return self

    @property
    def prior_num_inference_steps(self) -> int:
        """Steps of Stage C."""
        return len(self.prior_timesteps) - 1

    @property
    def num_inference_steps(self) -> int:
        """Steps of Stage B."""
        return len(self.decoder_timesteps) - 1


def save_png(path: Path, image: Image.Image, settings: Settings | None) -> None:
    """Write a PNG, with its settings unless they are None.

    Raises SaveError where that cannot be; what stood at `path` is then untouched.
    """
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_text(PARAMETERS, parameters(settings))
        steps = {
            "prior_num_inference_steps": settings.prior_num_inference_steps,
            "num_inference_steps": settings.num_inference_steps,
        }
        own = {**settings.model_dump(), "version": __version__, **steps}
        chunks.add_text(OWN, json.dumps(own, ensure_ascii=False))
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=chunks)
    write_file(path, content.getvalue())


def read_settings(path: Path) -> Settings:
    """What made the image, from the PNG itself.

    Raises ConfigError for a file that is no image of ours, or whose settings were taken out.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(OWN)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no image"
        raise ConfigError(
            f"Expected a PNG that `wuerstchen generate` made, found {str(path)!r} ({reason})."
        ) from None
    if not isinstance(text, str):
        raise ConfigError(
            f"{path}: expected an image with its settings (a chunk {OWN!r}), found none; it was "
            "made by another program, saved anew by one, or drawn with --no-metadata."
        )
    try:
        return Settings.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the chunk"
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: the settings in it cannot be used: {key}: {reason}.") from None


def parameters(settings: Settings) -> str:
    """Prompt, negative prompt and one line of pairs, as A1111 writes them."""
    pairs = {
        "Steps": settings.prior_num_inference_steps,
        "Sampler": settings.prior_sampler,
        "CFG scale": settings.prior_guidance_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": settings.model,
        "Decoder steps": settings.num_inference_steps,
        "Decoder sampler": settings.decoder_sampler,
        "Decoder CFG scale": settings.decoder_guidance_scale,
        "Version": f"wuerstchen {__version__}",
    }
    lines = [settings.prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items()))
    return "\n".join(lines)


def file_stem(prompt: str, seed: int) -> str:
    """A name for the image of a prompt: its words, then the seed."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-_")[:NAME_LENGTH].rstrip("-_")
    return f"{words or 'image'}-{seed}"


def unused(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... where no file stands yet."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value
