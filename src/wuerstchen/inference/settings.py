"""Settings of a generation: one object from the command line through the pipeline into the PNG.

In JSON the settings of both stages are flat, under the names of the pipeline's arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from wuerstchen.config import SEED_LIMIT

Dtype = Literal["fp32", "bf16", "fp16"]
"""Precisions that the command line offers."""

MOST_IN_BATCH = 64
"""Images that are made together; the command line makes 8."""

Pair = Field(strict=False)
"""A tuple may come from JSON, where it is a list."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How one stage is sampled; None leaves the choice to the model, then to the code."""

    steps: int | None = None
    timesteps: Sequence[float] | None = None
    """Falling times from 1 (noise) to 0 (data), in place of steps and spacing."""
    sampler: str | None = None
    """A name in `diffusion.SAMPLERS`."""
    spacing: str | None = None
    """A name in `diffusion.TIMES`, or `published`: the list of 29 steps."""
    guidance_scale: float | None = None
    guidance_interval: Annotated[tuple[float, float], Pair] | None = None
    """The least and the greatest time that are guided; the others cost half."""
    guidance_rescale: float | None = None
    guidance_end: float | None = None

    def over(self, base: "StageSettings") -> "StageSettings":
        """These settings, completed by those of `base`; steps or spacing replace its times."""
        chosen = {**vars(base), **{k: v for k, v in vars(self).items() if v is not None}}
        if self.timesteps is not None:  # steps or spacing next to them are refused later
            chosen |= {"steps": self.steps, "spacing": self.spacing}
        elif self.steps is None and self.spacing is None:
            if base.timesteps is not None:
                chosen |= {"steps": None, "spacing": None}
            elif base.steps is None:
                chosen["spacing"] = None  # then the published list
        else:
            chosen["timesteps"] = None
            if self.steps is None and self.spacing == "published":
                chosen["steps"] = None
            elif chosen["steps"] is None and base.timesteps is not None:
                chosen["steps"] = len(base.timesteps) - 1
        return StageSettings(**chosen)


JSON_NAMES: dict[str, dict[str, str]] = {
    "prior": {
        "steps": "prior_num_inference_steps",
        **{f.name: f"prior_{f.name}" for f in fields(StageSettings) if f.name != "steps"},
    },
    "decoder": {
        "steps": "num_inference_steps",
        **{name: f"decoder_{name}" for name in ("timesteps", "sampler", "spacing")},
        "guidance_scale": "decoder_guidance_scale",
    },
}
"""Keys in JSON of the fields of `StageSettings`, for Stage C (prior) and Stage B (decoder)."""


class StagePair(BaseModel):
    """Base of models with settings of Stages C (`prior`) and B (`decoder`), flat in JSON."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)
    omitted: ClassVar[frozenset[str]] = frozenset()
    """Fields of `StageSettings` that this JSON does not have."""

    @classmethod
    def json_names(cls, stage: str) -> dict[str, str]:
        """Keys of this JSON, by field."""
        names = JSON_NAMES.get(stage, {})
        return {field: name for field, name in names.items() if field not in cls.omitted}

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, values: object) -> object:
        """A stage that is not given as one is read from flat keys, over the class's default."""
        if not isinstance(values, dict):
            return values
        nested = dict(values)
        for stage in JSON_NAMES.keys() - values.keys():
            names = cls.json_names(stage)
            found = {field: nested.pop(name) for field, name in names.items() if name in nested}
            nested[stage] = {**vars(cls.model_fields[stage].default), **found}
        return nested

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        flat: dict[str, object] = {}
        for key, value in handler(self).items():
            names = self.json_names(key)
            flat |= {name: value[field] for field, name in names.items()} or {key: value}
        return flat


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """The image that a generation started from, and how; names are those of the pipeline."""

    image: str
    """File name, without its folder."""
    image_sha256: str
    """Of the file."""
    strength: float
    decoder_strength: float
    mask_image: str | None = None
    mask_sha256: str | None = None
    padding_mask_crop: int | None = None


class GenerationSettings(StagePair):
    """Everything that makes an image; None where the choice is left to the model."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())
    omitted = frozenset({"steps", "spacing"})  # an image records its times

    prompt: str
    negative_prompt: str
    seed: int | None
    width: int | None
    height: int | None
    prior: StageSettings = StageSettings()
    decoder: StageSettings = StageSettings()
    model: str = ""
    """Its name in `wuerstchen.json`."""
    dtype: Dtype = "fp32"
    """The requested precision."""
    loras: dict[str, float] = {}
    """File name, without its folder, and weight of each LoRA."""
    batch: Annotated[tuple[int, int], Pair] | None = None
    """Seed of the first image of the batch that this one was made in, and its number of images.

    Rounding differs between one image at a time and several.
    """
    version: str = ""
    """Of this package."""
    edit: EditSettings | None = None
    """None: generated from noise."""

    @model_validator(mode="after")
    def _is_in_its_batch(self) -> "GenerationSettings":
        if self.batch is not None and self.seed is not None:
            first, count = self.batch
            if not 1 <= count <= MOST_IN_BATCH:
                raise ValueError(f"a batch has 1 to {MOST_IN_BATCH} images, found {count}")
            if not 0 <= first <= SEED_LIMIT - count:
                raise ValueError(f"the seeds of a batch are from 0 to {SEED_LIMIT - 1}")
            if not first <= self.seed < first + count:
                raise ValueError(f"seed {self.seed} is not of the batch {first}, {count}")
        return self


def first_error(error: ValidationError, whole: str) -> tuple[str, str, object]:
    """Key in JSON, reason and value of the first error; `whole` where it has no key."""
    first = error.errors()[0]
    key: list[str] = []
    for part in map(str, first["loc"]):
        name = JSON_NAMES.get(key[-1], {}).get(part) if key else None
        key = [*key[:-1], name] if name else [*key, part]
    return ".".join(key) or whole, first["msg"].removeprefix("Value error, "), first["input"]
