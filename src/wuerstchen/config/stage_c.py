"""Config of Stage C and of its training, which also trains the small text encoder."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.config.training import (
    LoraConfig,
    LossWeight,
    Prediction,
    PretrainingConfig,
    TrainingConfig,
)


class StageCModel(Section):
    """The prior. Defaults are the released sizes (993,636,896 parameters)."""

    semantic_channels: int = Field(default=16, gt=0)
    """Channels of the semantics; must equal compressor.channels."""
    width: int = Field(default=1536, gt=0)
    depth: int = Field(default=32, gt=0)
    """Number of convolution, time and attention block triples."""
    heads: int = Field(default=24, gt=0)
    """Attention heads; must divide `width`."""
    text_width: int = Field(default=1280, gt=0)
    time_width: int = Field(default=64, gt=3, multiple_of=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    predicts: Prediction = "noise"
    """Prediction type: the noise, as published, the data, or the velocity along the circle (v) or
    the straight line (flow) between them. diffusers opens only models that predict noise."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "StageCModel":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class PriorPreservationConfig(Section):
    """Prior preservation (DreamBooth, arXiv:2208.12242, section 3.2).

    The initial model generates semantics for `class_prompt` (no images are decoded). Each training
    image of the subject is paired with one of them.
    """

    class_prompt: str = Field(min_length=1)
    """Prompt for the class, such as `a photo of a dog` if the subject is `a photo of sks dog`."""
    class_images: int = Field(default=100, gt=0)
    """Number of class samples generated before training."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the class loss relative to the subject loss."""


class StageCTraining(TrainingConfig):
    """The text-conditional stage on cached semantics (appendix E.3)."""

    images: int = Field(default=500_000 * 1536, ge=0)
    batch_size: int = Field(default=1536, gt=0)
    loss_weighting: LossWeight = "p2"
    """How the loss is weighted by noise level."""
    gradient_checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass: less memory, a third more time."""
    caption_dropout: float = Field(default=0.05, ge=0, le=1)
    """Fraction of the images trained with an empty caption."""
    high_noise_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Fraction of the training times above 0.6, where the caption matters most; null: 45 %, as
    published."""
    lora: LoraConfig | None = None
    """Train only low-rank layers on top of `init_from`."""
    prior_preservation: PriorPreservationConfig | None = None
    """Learn a subject without forgetting its class, starting from `init_from`."""
    train_text_encoder: bool = True
    """Whether the small text encoder is trained with Stage C; `text.pretrained` never is."""
    head: Literal["difference", "published"] = "difference"
    """The published head is (x - A) / (|1 - B| + 1e-5). published: train A and B; difference: fix
    B at zero, which leaves x - A."""


class TextPretraining(PretrainingConfig):
    """Pretrain the small text encoder with a throwaway network that predicts semantics."""

    width: int = Field(default=512, gt=0)
    """Channels of the throwaway network."""


class StageCConfig(Section):
    model: StageCModel = StageCModel()
    pretraining: TextPretraining | None = None
    """Pretrains a new text encoder before Stage C; excludes `training.init_from` and
    `text.pretrained`."""
    training: StageCTraining = StageCTraining()

    @model_validator(mode="after")
    def _one_initialisation(self) -> "StageCConfig":
        start = self.training.init_from
        if self.pretraining is not None and start:
            raise ValueError(
                f"stage_c.training.init_from is {start!r}, but stage_c.pretraining would train "
                "another text encoder; set one of them to null or empty"
            )
        for key in ("lora", "prior_preservation"):
            if getattr(self.training, key) is not None and not start:
                raise ValueError(
                    f"stage_c.training.{key} needs a model to start from; set "
                    "stage_c.training.init_from, or base, to a model folder"
                )
        return self
