"""Keys of Stage B and of its training, which is the compressor's too."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wuerstchen.config.lora import LoraConfig
from wuerstchen.config.section import Section
from wuerstchen.config.training import LossWeight, PretrainingConfig, TrainingConfig

Size = Annotated[int, Field(gt=0)]


class StageBModel(Section):
    """DiffNeXt. Defaults are the published sizes (1,055,365,280 parameters)."""

    widths: tuple[Size, ...] = Field(default=(320, 640, 1280, 1280), min_length=1)
    blocks: tuple[Size, ...] = (4, 4, 14, 4)
    heads: tuple[Annotated[int, Field(ge=0)], ...] = (0, 10, 20, 20)
    """Attention heads per level; 0: a level without attention."""
    semantics: tuple[bool, ...] = (False, True, True, True)
    """Levels that are joined with the semantics."""
    semantic_channels: int = Field(default=16, gt=0)
    condition_width: int = Field(default=1024, gt=0)
    text_width: int = Field(default=1024, gt=0)
    time_width: int = Field(default=64, gt=3, multiple_of=2)
    patch: Literal[1, 2, 4] = 2
    """Latent cells per cell of the first level and side."""
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _levels_agree(self) -> "StageBModel":
        lengths = {len(self.widths), len(self.blocks), len(self.heads), len(self.semantics)}
        if len(lengths) > 1:
            raise ValueError("widths, blocks, heads and semantics must name equally many levels")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if heads and width % heads:
                raise ValueError(f"width {width} must be a multiple of its {heads} heads")
        return self


class StageBTraining(TrainingConfig):
    """Compressor and Stage B jointly (appendix E.2). Rates are those of version 1's code."""

    images: int = Field(default=457_000 * 512, ge=0)
    batch_size: int = Field(default=512, gt=0)
    loss_weighting: LossWeight = "p2"
    gradient_checkpointing: bool = False
    """Computes what happens inside of the blocks twice, a third more time, and keeps less of it."""
    semantics_dropout: float = Field(default=0.05, ge=0, le=1)
    """Share of the images whose semantics are replaced by zeros."""
    semantics_noise: float = Field(default=0.3, ge=0, le=1)
    """Share of the remaining images whose semantics are noised, at times up to 0.5."""
    text: bool = True
    """Whether Stage B reads the caption. Small models do without: the authors found that its
    removal costs nothing (50 % preference), and their text encoder is trained later."""
    freeze_compressor: bool = False
    """Train Stage B alone, on a compressor that stays as it is: the semantics keep their meaning,
    and a Stage C that draws them goes on to fit."""
    lora: LoraConfig | None = None
    """Train low-rank layers of Stage B alone, on a `start` whose compressor is frozen."""
    compressor_weights: str = ""
    """A safetensors file of EfficientNetV2-S features (ImageNet) with torchvision key names."""


class CompressorPretraining(PretrainingConfig):
    """The compressor with a small decoder that is thrown away, before it meets Stage B.

    For compressors that start without ImageNet weights.
    """

    width: int = Field(default=192, gt=0)
    depth: int = Field(default=4, gt=0)


class StageBConfig(Section):
    model: StageBModel = StageBModel()
    pretraining: CompressorPretraining | None = None
    """Teaches a new compressor before the joint training; not together with `training.init_from`."""
    training: StageBTraining = StageBTraining()

    @model_validator(mode="after")
    def _one_beginning(self) -> "StageBConfig":
        if self.pretraining is not None and self.training.init_from:
            raise ValueError(
                f"stage_b.training.init_from is {self.training.init_from!r}, but stage_b.pretraining would "
                "train another compressor; set one of them to null or empty"
            )
        if self.training.compressor_weights and self.training.init_from:
            raise ValueError(
                f"stage_b.training.init_from is {self.training.init_from!r}, which brings a compressor, "
                "but stage_b.training.compressor_weights would begin another one; set one of them "
                "empty"
            )
        if (
            self.training.freeze_compressor
            and self.pretraining is None
            and not self.training.init_from
        ):
            raise ValueError(
                "stage_b.training.freeze_compressor is true, but nothing brings a trained "
                "compressor; set stage_b.training.init_from to a model folder, or add a pretraining"
            )
        if self.training.lora is not None and self.training.lora.text:
            raise ValueError(
                "stage_b.training.lora.text is true, but the text encoder learns with Stage C "
                "alone; set it to false"
            )
        if self.training.lora is not None and not (
            self.training.init_from and self.training.freeze_compressor
        ):
            raise ValueError(
                "stage_b.training.lora needs a model that it changes and semantics that keep their "
                "meaning; set stage_b.training.init_from to a model folder and freeze_compressor to "
                "true"
            )
        return self
