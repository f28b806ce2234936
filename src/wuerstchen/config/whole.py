"""All sections together, and what must hold between them."""

from pathlib import Path

from pydantic import Field, model_validator

from wuerstchen.config.compressor import CompressorModel
from wuerstchen.config.data import DataConfig
from wuerstchen.config.section import Section
from wuerstchen.config.stage_a import StageAConfig
from wuerstchen.config.stage_b import StageBConfig
from wuerstchen.config.stage_c import StageCConfig
from wuerstchen.config.text import TextConfig
from wuerstchen.geometry import LATENT_STRIDE, SIZE_STEP, bucket_shapes


class Config(Section):
    """A whole run: data in, one model folder out."""

    name: str = Field(default="model", min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    output: str = ""
    """The model folder; `models/NAME` when empty. Runs keep their state in its `runs/` folder."""
    base: str = ""
    """A model folder, or `emoji`, that every stage starts from which names no other `start`."""
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    compressor: CompressorModel = CompressorModel()
    stage_a: StageAConfig = StageAConfig()
    stage_b: StageBConfig = StageBConfig()
    stage_c: StageCConfig = StageCConfig()
    prompts: tuple[str, ...] = ()
    """What Stage C is asked to draw at every look; captions of the data when empty."""

    @property
    def folder(self) -> Path:
        return Path(self.output or f"models/{self.name}")

    @model_validator(mode="before")
    @classmethod
    def _start_from_base(cls, values: object) -> object:
        """Before the stages are looked at, some of whose keys need a start."""
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
    def _crops_fit(self) -> "Config":
        shapes = bucket_shapes(self.data.size) if self.data.buckets else []
        shortest = min((min(shape) for shape in shapes), default=self.data.size)
        if self.stage_a.training.crop > shortest:
            raise ValueError(
                f"stage_a.training.crop is {self.stage_a.training.crop}, but the shortest side of "
                f"the images is {shortest} (data.size {self.data.size}); the crop must not be "
                "larger"
            )
        if self.data.buckets and self.stage_c.pretraining is not None:
            raise ValueError(
                "data.buckets is true, but stage_c.pretraining sketches images of one shape; set "
                "one of them to false or null"
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
                f"need latents in steps of {coarsest} cells, but sides of {side} pixels give "
                f"{cells}; use fewer levels, a smaller patch or larger images"
            )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> "Config":
        for stage, found in (
            ("stage_b", self.stage_b.model.semantic_channels),
            ("stage_c", self.stage_c.model.semantic_channels),
        ):
            if found != self.compressor.channels:
                raise ValueError(
                    f"{stage}.model.semantic_channels is {found}, but compressor.channels is "
                    f"{self.compressor.channels}; they must be equal"
                )
        new_text = not self.text.pretrained and not self.stage_c.training.init_from
        if new_text and self.stage_c.model.text_width != self.text.width:
            raise ValueError(
                f"stage_c.model.text_width is {self.stage_c.model.text_width}, but text.width is "
                f"{self.text.width}; they must be equal where the text encoder is trained"
            )
        if new_text and not self.stage_c.training.train_text and self.stage_c.pretraining is None:
            raise ValueError(
                "stage_c.training.train_text is false, but nothing brings a text encoder that has "
                "learned; set it to true, or stage_c.training.init_from, stage_c.pretraining or "
                "text.pretrained"
            )
        if self.text.pretrained and self.stage_c.pretraining is not None:
            raise ValueError(
                f"text.pretrained is {self.text.pretrained!r}, which stays as it is, but "
                "stage_c.pretraining would train a small text encoder; set one of them to null or "
                "empty"
            )
        published = self.text.pretrained_b or self.text.pretrained
        if self.stage_b.training.text and not (published or self.stage_b.training.init_from):
            raise ValueError(
                "stage_b.training.text is true, but no text encoder exists before Stage C is "
                "trained; set it to false, text.pretrained_b to a folder, or start from a model"
            )
        if self.data.buckets and self.stage_c.training.prior_preservation is not None:
            raise ValueError(
                "data.buckets is true, but stage_c.training.prior_preservation draws semantics of one shape; "
                "set one of them to false or null"
            )
        if new_text and not self.stage_b.training.text and not self.text.pretrained_b:
            if self.stage_b.model.text_width != self.stage_c.model.text_width:
                raise ValueError(
                    f"stage_b.model.text_width is {self.stage_b.model.text_width}, but "
                    f"stage_c.model.text_width is {self.stage_c.model.text_width}; they must be "
                    "equal where both stages share one text encoder"
                )
        return self
