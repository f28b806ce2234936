"""The complete config and the constraints between its sections."""

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from wuerstchen.config.data import DataConfig
from wuerstchen.config.section import SEED_LIMIT, Section
from wuerstchen.config.stage_a import StageAConfig
from wuerstchen.config.stage_b import CompressorModel, StageBConfig, StageBModel
from wuerstchen.config.stage_c import StageCConfig
from wuerstchen.config.text import TextConfig
from wuerstchen.geometry import LATENT_STRIDE, SIZE_STEP, bucket_shapes


class Config(Section):
    """One complete training: from data to a model folder."""

    name: str = Field(default="model", min_length=1)
    """Of the model; without path separators, since it names a folder."""
    seed: int = Field(default=0, ge=0, lt=SEED_LIMIT)
    """Seed of all randomness in training."""
    output: str = ""
    """The model folder; empty: `models/NAME`. Runs keep their state in its `runs/` folder."""
    base: str = ""
    """Default for `init_from` of every stage: a model folder, or `stickers`."""
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    compressor: CompressorModel = CompressorModel()
    stage_a: StageAConfig = StageAConfig()
    stage_b: StageBConfig = StageBConfig()
    stage_c: StageCConfig = StageCConfig()
    validation_prompts: tuple[str, ...] = ()
    """Prompts for the image grids of Stage C; empty: captions of the data."""

    @property
    def folder(self) -> Path:
        return Path(self.output or f"models/{self.name}")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        """With path parts, `models/NAME` would be anywhere; and no folder has such a name."""
        if name.strip(". ") == "" or not set("/\\").isdisjoint(name) or not name.isprintable():
            raise ValueError(
                f"name must be a plain name such as cat-128, found {name!r}; to train into "
                "another folder, set output"
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _init_from_base(cls, values: object) -> object:
        """Fill in `init_from` before the stages are validated: some of their keys need it."""
        base = values.get("base") if isinstance(values, dict) else None
        if not isinstance(values, dict) or not isinstance(base, str) or not base:
            return values
        filled = dict(values)
        for stage in ("stage_a", "stage_b", "stage_c"):
            section = filled.get(stage, {})
            training = section.get("training", {}) if isinstance(section, dict) else None
            if isinstance(training, dict) and not training.get("init_from"):
                filled[stage] = {**section, "training": {**training, "init_from": base}}
        return filled

    @model_validator(mode="after")
    def _shapes_fit(self) -> "Config":
        data, crop = self.data, self.stage_a.training.crop_size
        shapes = bucket_shapes(data.size) if data.buckets else []
        shortest = min((min(shape) for shape in shapes), default=data.size)
        if crop > shortest:
            raise ValueError(
                f"stage_a.training.crop_size is {crop}, but the shortest side of the images is "
                f"{shortest} (data.size {data.size}); the crop must not be larger"
            )
        for key, found in (
            ("stage_c.pretraining", self.stage_c.pretraining),
            ("stage_c.training.prior_preservation", self.stage_c.training.prior_preservation),
        ):
            if data.buckets and found is not None:
                raise ValueError(
                    f"data.buckets is true, but {key} uses semantics of a single shape; set one of "
                    "them to false or null"
                )
        return self

    @model_validator(mode="after")
    def _levels_fit(self) -> "Config":
        model = self.stage_b.model
        side = SIZE_STEP if self.data.buckets else self.data.size
        cells, coarsest = side // LATENT_STRIDE, model.patch << len(model.widths) - 1
        if cells % coarsest:
            raise ValueError(
                f"stage_b.model has {len(model.widths)} levels and a patch of {model.patch}, which "
                f"need latent sides divisible by {coarsest}, but images with a side of {side} "
                f"pixels give {cells} cells; use fewer levels, a smaller patch or larger images"
            )
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> "Config":
        for stage, model in (("stage_b", self.stage_b.model), ("stage_c", self.stage_c.model)):
            found, needed = model.semantic_channels, self.compressor.channels
            reads = model.reads_semantics if isinstance(model, StageBModel) else True
            if reads and found != needed:
                raise ValueError(
                    f"{stage}.model.semantic_channels is {found}, but compressor.channels is "
                    f"{needed}; they must be equal"
                )
        return self

    @model_validator(mode="after")
    def _text_encoders_fit(self) -> "Config":
        text, stage_b, stage_c = self.text, self.stage_b, self.stage_c
        new = not text.pretrained and not stage_c.training.init_from
        if new and stage_c.model.text_width != text.width:
            raise ValueError(
                f"stage_c.model.text_width is {stage_c.model.text_width}, but text.width is "
                f"{text.width}; they must be equal if the text encoder is trained"
            )
        if new and not stage_c.training.train_text_encoder and stage_c.pretraining is None:
            raise ValueError(
                "stage_c.training.train_text_encoder is false, but there is no trained text "
                "encoder; set it to true, or set stage_c.training.init_from, stage_c.pretraining "
                "or text.pretrained"
            )
        if text.pretrained and stage_c.pretraining is not None:
            raise ValueError(
                f"text.pretrained is {text.pretrained!r}, which stays frozen, but "
                "stage_c.pretraining would train a small text encoder; set one of them to null or "
                "empty"
            )
        published = text.pretrained_b or text.pretrained
        if stage_b.training.text_conditioning and not (published or stage_b.training.init_from):
            raise ValueError(
                "stage_b.training.text_conditioning is true, but there is no text encoder before "
                "Stage C is trained; set it to false, text.pretrained_b to a folder, or init_from "
                "to a model"
            )
        return self
