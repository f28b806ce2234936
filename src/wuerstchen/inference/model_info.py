"""A model's `wuerstchen.json`: its name, its size and its default settings."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from reprlib import repr as brief
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from wuerstchen.atomic_write import write_file
from wuerstchen.config import Prediction, Section
from wuerstchen.diffusion import DATA_TIMES, SAMPLERS, TIMES
from wuerstchen.errors import ModelFolderError
from wuerstchen.geometry import SIZE_STEP
from wuerstchen.inference.settings import StagePair, StageSettings, first_error
from wuerstchen.parsing import ParseError, parse_object
from wuerstchen.weights import ModelFiles
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.hub import is_hub_id

INFO_FILE = "wuerstchen.json"


def times_fall(times: Sequence[float]) -> bool:
    """Whether they fall from 1 (noise) to 0 (data), where every stage starts and ends."""
    falling = all(t > s for t, s in pairwise(times))
    return len(times) >= 2 and falling and times[0] == 1 and times[-1] == 0


def _checked_times(times: tuple[float, ...]) -> tuple[float, ...]:
    if not times_fall(times):
        raise ValueError("Times should fall from 1 (noise) to 0 (data)")
    return times


def _one_of(known: Collection[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"The {what} should be one of {', '.join(known)}")
        return name

    return AfterValidator(check)


@dataclass(frozen=True, kw_only=True)
class ModelStageSettings(StageSettings):
    """Settings of a stage that a model brings, checked when its file is read."""

    steps: Annotated[int, Field(gt=0)] | None = None
    timesteps: Annotated[tuple[float, ...], AfterValidator(_checked_times)] | None = None
    sampler: Annotated[str, _one_of(SAMPLERS, "sampler")] = "dpm++2m"
    spacing: Annotated[str, _one_of(TIMES, "spacing")] = "tuned"
    guidance_scale: float = 0.0


class Defaults(StagePair):
    """Settings for what a call of the pipeline leaves open.

    On the bundled model 12 and 6 steps lost nothing against 60 and 12 of DDPM, which the authors
    used (docs/benchmarks/quality.md). Null for the steps of Stage C: the published list of 29.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    omitted = frozenset({"guidance_end"})

    prior: ModelStageSettings = ModelStageSettings(
        steps=12, guidance_scale=4.0, guidance_interval=(0.25, 1.0), guidance_rescale=0.0
    )
    decoder: ModelStageSettings = ModelStageSettings(steps=6)


class ModelInfo(Section):
    """The file `wuerstchen.json` of a model folder; models without it have these values."""

    name: str = ""
    """Name of the model in the metadata of images; empty: the name of its folder."""
    size: int = Field(default=1024, gt=0, multiple_of=SIZE_STEP, strict=True)
    """Default side of its images in pixels."""
    defaults: Defaults = Defaults()


def new_info(predicts: Prediction) -> ModelInfo:
    """Of a new model with the default settings for what its Stage B predicts."""
    if predicts != "data":
        return ModelInfo()
    decoder = ModelStageSettings(timesteps=DATA_TIMES, sampler="ddim")
    return ModelInfo(defaults=Defaults(decoder=decoder))


def read_info(folder: Path, called: str) -> ModelInfo:
    """Read `wuerstchen.json`; the defaults without it, and `called` where it has no name."""
    path = folder / INFO_FILE
    if not path.is_file():
        return ModelInfo(name=called)
    return _parsed(path.read_bytes(), path, called)


def info_of(files: ModelFiles) -> ModelInfo:
    """The same for the result of `weights.resolve`, in any layout."""
    source = files.source
    if source.is_dir():
        return read_info(source, files.name if is_hub_id(files.name) else source.resolve().name)
    text = read_header(source).metadata.get(INFO_FILE)
    if text is None:
        return ModelInfo(name=source.stem)
    return _parsed(text.encode(), source / INFO_FILE, source.stem)


def _parsed(content: bytes, path: Path, called: str) -> ModelInfo:
    try:
        info = ModelInfo.model_validate_json(to_json(parse_object(content)))
    except ValidationError as error:
        key, reason, found = first_error(error, "the file")
        raise ModelFolderError(
            f"{path}: {key} cannot be used ({reason}; found {brief(found)}); "
            "correct it, or remove the file to use the defaults."
        ) from None
    except ParseError as error:
        raise ModelFolderError(
            f"{path} cannot be used: {error}; correct it, or remove it to use the defaults."
        ) from None
    return info if info.name else info.model_copy(update={"name": called})


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `wuerstchen.json`; SaveError if that fails."""
    write_file(folder / INFO_FILE, (info.model_dump_json(indent=2) + "\n").encode())
