"""What a model's `wuerstchen.json` says: its name, its size and the settings that suit it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from reprlib import repr as brief

from pydantic import Field, ValidationError, field_validator

from wuerstchen.atomic_write import write_file
from wuerstchen.config import Section
from wuerstchen.diffusion import SAMPLERS, TIMES
from wuerstchen.errors import ModelFolderError
from wuerstchen.geometry import SIZE_STEP
from wuerstchen.weights import ModelFiles
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.hub import find, is_hub_id

__all__ = [
    "Defaults",
    "ModelInfo",
    "StageSettings",
    "find",
    "info_of",
    "read_info",
    "times_fall",
    "write_info",
]

INFO_FILE = "wuerstchen.json"


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How one stage is to be run; None is what the model, or else the code, has for it."""

    steps: int | None = None
    timesteps: Sequence[float] | None = None
    sampler: str | None = None
    spacing: str | None = None
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float | None = None
    guidance_end: float | None = None


class Defaults(Section):
    """What a call of the pipeline uses for what it was not given; names of its arguments."""

    prior_num_inference_steps: int | None = Field(default=12, gt=0)
    """Steps of Stage C; null: the published list of 29. 12 with 6 of Stage B lost nothing against
    60 and 12 of DDPM on the bundled model (docs/benchmarks/quality.md); the released weights were
    not measured, and their authors drew with 60 or the published 29, and 12, of DDPM."""
    prior_timesteps: tuple[float, ...] | None = None
    """Falling times of Stage C in place of a number of steps."""
    prior_sampler: str = "dpm++2m"
    """A name in `diffusion.SAMPLERS`."""
    prior_spacing: str = "tuned"
    """What is even between the steps: a name in `diffusion.TIMES`."""
    prior_guidance_scale: float = 4.0
    prior_guidance_interval: tuple[float, float] = (0.25, 1.0)
    """The least and the greatest time that are guided; the others cost half."""
    prior_guidance_rescale: float = 0.0
    num_inference_steps: int = Field(default=6, gt=0)
    """Steps of Stage B."""
    decoder_timesteps: tuple[float, ...] | None = None
    """Falling times of Stage B in place of a number of steps."""
    decoder_sampler: str = "dpm++2m"
    decoder_spacing: str = "tuned"
    decoder_guidance_scale: float = 0.0

    @field_validator("prior_timesteps", "decoder_timesteps")
    @classmethod
    def _fall(cls, times: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if times is not None and not times_fall(times):
            raise ValueError("Times should fall from 1 (noise) to 0 (data)")
        return times

    @field_validator("prior_sampler", "decoder_sampler")
    @classmethod
    def _is_sampler(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(f"The sampler should be one of {', '.join(SAMPLERS)}")
        return name

    @field_validator("prior_spacing", "decoder_spacing")
    @classmethod
    def _is_spacing(cls, name: str) -> str:
        if name not in TIMES:
            raise ValueError(f"The spacing should be one of {', '.join(TIMES)}")
        return name

    @property
    def prior(self) -> StageSettings:
        """Those of Stage C."""
        return StageSettings(
            steps=self.prior_num_inference_steps,
            timesteps=self.prior_timesteps,
            sampler=self.prior_sampler,
            spacing=self.prior_spacing,
            guidance_scale=self.prior_guidance_scale,
            guidance_interval=self.prior_guidance_interval,
            guidance_rescale=self.prior_guidance_rescale,
        )

    @property
    def decoder(self) -> StageSettings:
        """Those of Stage B."""
        return StageSettings(
            steps=self.num_inference_steps,
            timesteps=self.decoder_timesteps,
            sampler=self.decoder_sampler,
            spacing=self.decoder_spacing,
            guidance_scale=self.decoder_guidance_scale,
        )


class ModelInfo(Section):
    """The file `wuerstchen.json` of a model folder; models without it have these values."""

    name: str = ""
    """What the model is called in images' metadata; empty: the name of its folder."""
    size: int = Field(default=1024, gt=0, multiple_of=SIZE_STEP, strict=True)
    """Side of its images in pixels where no other is asked for."""
    defaults: Defaults = Defaults()


def times_fall(times: Sequence[float]) -> bool:
    """Whether they fall from 1 (noise) to 0 (data), which is where a stage starts and ends."""
    falling = all(t > s for t, s in pairwise(times))
    return len(times) >= 2 and falling and times[0] == 1 and times[-1] == 0


def read_info(folder: Path, called: str) -> ModelInfo:
    """What `wuerstchen.json` says, or the defaults where there is none.

    called  the name of a model that does not say its own
    """
    path = folder / INFO_FILE
    if not path.is_file():
        return ModelInfo(name=called)
    return _parsed(path.read_bytes(), path, called)


def info_of(files: ModelFiles) -> ModelInfo:
    """The same of a model that `weights.resolve` found, in whatever layout."""
    source = files.source
    on_hub = is_hub_id(files.name)
    if source.is_dir():
        return read_info(source, files.name if on_hub else source.resolve().name)
    text = read_header(source).metadata.get(INFO_FILE)
    if text is None:
        return ModelInfo(name=source.stem)
    return _parsed(text.encode(), source / INFO_FILE, source.stem)


def _parsed(content: bytes, path: Path, called: str) -> ModelInfo:
    try:
        info = ModelInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        raise ModelFolderError(
            f"{path}: {key} cannot be used ({reason}; found {brief(first['input'])}); "
            "correct it, or remove the file to use the defaults."
        ) from None
    return info if info.name else info.model_copy(update={"name": called})


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `wuerstchen.json`; SaveError where that cannot be."""
    write_file(folder / INFO_FILE, (info.model_dump_json(indent=2) + "\n").encode())
