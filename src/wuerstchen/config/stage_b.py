"""Config of Stage B and of the compressor, which are trained together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.config.training import (
    LoraConfig,
    LossWeight,
    Prediction,
    PretrainingConfig,
    TrainingConfig,
)

Size = Annotated[int, Field(gt=0)]


class CompressorModel(Section):
    """EfficientNetV2-S with a 1x1 mapper (20,197,968 parameters without affine)."""

    channels: int = Field(default=16, gt=0)
    """Channels of the semantics."""
    width: float = Field(default=1.0, gt=0, le=1)
    """Multiplier for the channels of every backbone stage, rounded to multiples of 8."""
    depth: float = Field(default=1.0, gt=0, le=1)
    """Multiplier for the number of blocks of every backbone stage (at least 1 each)."""
    affine: bool = True
    """Whether the last BatchNorm has weights. New models fix them so that semantics have the
    published scale 42 and shift -1."""
    patch_embedding: bool = False
    """Add a linear map of each cell's pixels, averaged to 8 x 8, to the output of the backbone, as
    at the entrance of a vision transformer (arXiv:2010.11929). A small backbone takes long to learn
    that much (docs/log.md). Published compressors have none."""


class StageBModel(Section):
    """DiffNeXt. Defaults are the published sizes (1,055,365,280 parameters)."""

    widths: tuple[Size, ...] = Field(default=(320, 640, 1280, 1280), min_length=1)
    """Channels of each level."""
    blocks: tuple[Size, ...] = (4, 4, 14, 4)
    """Blocks of each level."""
    heads: tuple[Annotated[int, Field(ge=0)], ...] = (0, 10, 20, 20)
    """Attention heads of each level; 0: a level without attention."""
    semantics: tuple[bool, ...] = (False, True, True, True)
    """Which levels are conditioned on the semantics."""
    semantic_channels: int = Field(default=16, gt=0)
    """Channels of the semantics; must equal compressor.channels."""
    subpixel_channels: int = Field(default=0, ge=0)
    """Channels of a sub-pixel convolution of the semantics (arXiv:1609.05158) that all levels read
    beside the interpolated ones; 0: none, as published. It learns what is where inside a cell,
    which interpolation hides (docs/log.md)."""
    condition_width: int = Field(default=1024, gt=0)
    """Width of the conditioning that attention reads."""
    text_width: int = Field(default=1024, gt=0)
    time_width: int = Field(default=64, gt=3, multiple_of=2)
    patch: Literal[1, 2, 4] = 2
    """Side of the patches of latent cells that the first level works on."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    predicts: Prediction = "noise"
    """Prediction type, as for Stage C. A narrow network learns the data several times faster than
    the noise, which it cannot pass through its channels (docs/log.md)."""

    @property
    def reads_semantics(self) -> bool:
        """Whether any level does; otherwise their channels are without effect."""
        return any(self.semantics)

    @model_validator(mode="after")
    def _levels_agree(self) -> "StageBModel":
        lengths = {len(self.widths), len(self.blocks), len(self.heads), len(self.semantics)}
        if len(lengths) > 1:
            raise ValueError("widths, blocks, heads and semantics must have equally many levels")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if heads and width % heads:
                raise ValueError(f"width {width} must be a multiple of its {heads} heads")
        return self


class StageBTraining(TrainingConfig):
    """Compressor and Stage B jointly (appendix E.2). Learning rates as in version 1's code."""

    images: int = Field(default=457_000 * 512, ge=0)
    batch_size: int = Field(default=512, gt=0)
    loss_weighting: LossWeight = "p2"
    """How the loss is weighted by noise level."""
    gradient_checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass: less memory, a third more time."""
    high_noise_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Fraction of the training times above 0.6, where the semantics matter most; null: 45 %, as
    published."""
    semantics_dropout: float = Field(default=0.05, ge=0, le=1)
    """Fraction of the images whose semantics are replaced by zeros."""
    semantics_noise: float = Field(default=0.3, ge=0, le=1)
    """Fraction of the remaining images whose semantics get noise, at times up to 0.5."""
    text_conditioning: bool = True
    """Whether Stage B reads the caption. The small configs turn it off: the authors found no loss
    without it (50 % preference), and their text encoder is trained later."""
    freeze_compressor: bool = False
    """Train Stage B alone with a fixed compressor, so that an existing Stage C still fits."""
    lora: LoraConfig | None = None
    """Train only low-rank layers of Stage B on top of `init_from`, with a frozen compressor."""
    compressor_weights: str = ""
    """A safetensors file of EfficientNetV2-S features (ImageNet) with torchvision key names."""


class CompressorPretraining(PretrainingConfig):
    """Pretrain the compressor with a small throwaway decoder; replaces ImageNet weights."""

    width: int = Field(default=192, gt=0)
    """Channels of the throwaway decoder."""
    depth: int = Field(default=4, gt=0)
    """Blocks of the throwaway decoder."""


class StageBConfig(Section):
    model: StageBModel = StageBModel()
    pretraining: CompressorPretraining | None = None
    """Pretrains a new compressor before the joint training; excludes `training.init_from`."""
    training: StageBTraining = StageBTraining()

    @model_validator(mode="after")
    def _one_initialisation(self) -> "StageBConfig":
        training, start = self.training, self.training.init_from
        if self.pretraining is not None and start:
            raise ValueError(
                f"stage_b.training.init_from is {start!r}, but stage_b.pretraining would train "
                "another compressor; set one of them to null or empty"
            )
        if training.compressor_weights and start:
            raise ValueError(
                f"stage_b.training.init_from is {start!r}, which has a compressor, but "
                "stage_b.training.compressor_weights would initialise another one; set one of "
                "them empty"
            )
        if training.freeze_compressor and self.pretraining is None and not start:
            raise ValueError(
                "stage_b.training.freeze_compressor is true, but there is no trained compressor; "
                "set stage_b.training.init_from to a model folder, or add a pretraining"
            )
        if training.lora is None:
            return self
        if training.lora.train_text_encoder:
            raise ValueError(
                "stage_b.training.lora.train_text_encoder is true, but only Stage C trains the "
                "text encoder; set it to false"
            )
        if not (start and training.freeze_compressor):
            raise ValueError(
                "stage_b.training.lora needs a model to fine-tune and a fixed compressor; set "
                "stage_b.training.init_from to a model folder and freeze_compressor to true"
            )
        return self
