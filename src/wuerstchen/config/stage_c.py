"""Keys of Stage C and of its training, which is the small text encoder's too."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.lora import LoraConfig, PriorPreservationConfig
from wuerstchen.config.section import Section
from wuerstchen.config.training import LossWeight, Prediction, PretrainingConfig, TrainingConfig


class StageCModel(Section):
    """The prior. Defaults are the released sizes (993,636,896 parameters)."""

    semantic_channels: int = Field(default=16, gt=0)
    width: int = Field(default=1536, gt=0)
    depth: int = Field(default=32, gt=0)
    """Times convolution, time and attention follow each other."""
    heads: int = Field(default=24, gt=0)
    text_width: int = Field(default=1280, gt=0)
    time_width: int = Field(default=64, gt=3, multiple_of=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    predicts: Prediction = "noise"
    """What the output layer says: the noise, as published; v or flow, the velocity along the circle
    or the straight line between data and noise. diffusers opens models that predict the noise."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "StageCModel":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class StageCTraining(TrainingConfig):
    """The text-conditional stage on cached semantics (appendix E.3)."""

    images: int = Field(default=500_000 * 1536, ge=0)
    batch_size: int = Field(default=1536, gt=0)
    loss_weighting: LossWeight = "p2"
    gradient_checkpointing: bool = False
    """Computes what happens inside of the blocks twice, a third more time, and keeps less of it."""
    caption_dropout: float = Field(default=0.05, ge=0, le=1)
    """Share of the images whose caption is left empty, decided for each image."""
    high_noise_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training times above 0.6, where the caption decides; null: as published,
    45 %."""
    lora: LoraConfig | None = None
    """Train low-rank layers alone, on a `start`."""
    prior_preservation: PriorPreservationConfig | None = None
    """Learn a subject without forgetting its class, on a `start`."""
    train_text: bool = True
    """Whether a text encoder that is not `text.pretrained` learns with Stage C."""
    head: Literal["difference", "published"] = "difference"
    """difference holds the B half of the output layer at zero, which makes the published head
    (x - A) / (|1 - B| + 1e-5) plain x - A; published lets it learn."""


class TextPretraining(PretrainingConfig):
    """The small text encoder with a network that guesses semantics and is thrown away, before it
    meets Stage C."""

    width: int = Field(default=512, gt=0)


class StageCConfig(Section):
    model: StageCModel = StageCModel()
    pretraining: TextPretraining | None = None
    """Teaches a new text encoder before the diffusion; not together with `training.init_from`, nor
    with `text.pretrained`."""
    training: StageCTraining = StageCTraining()

    @model_validator(mode="after")
    def _one_beginning(self) -> "StageCConfig":
        if self.pretraining is not None and self.training.init_from:
            raise ValueError(
                f"stage_c.training.init_from is {self.training.init_from!r}, but stage_c.pretraining would "
                "train another text encoder; set one of them to null or empty"
            )
        for key in ("lora", "prior_preservation"):
            if getattr(self.training, key) is not None and not self.training.init_from:
                raise ValueError(
                    f"stage_c.training.{key} needs a model that it starts from; set "
                    "stage_c.training.init_from, or base, to a model folder"
                )
        return self
