"""Keys of Stage A."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.lora import LoraConfig
from wuerstchen.config.section import Section
from wuerstchen.config.training import TrainingConfig


class StageAModel(Section):
    """VQGAN f4. Defaults are the published sizes (18,406,894 parameters)."""

    width: int = Field(default=384, gt=0, multiple_of=2)
    """Channels at a quarter of the image's side; half as many at half the side."""
    depth: int = Field(default=12, gt=0)
    """Blocks of the decoder at the latent's resolution."""
    latent_channels: Literal[4] = 4
    codebook: int = Field(default=8192, gt=1)
    scale: float = Field(default=0.3764, gt=0)
    """Latents are divided by this after encoding; training measures it anew."""


class StageATraining(TrainingConfig):
    """Recipe of the paper, appendix E.1."""

    images: int = Field(default=500_000 * 256, ge=0)
    batch_size: int = Field(default=256, gt=0)
    crop: int = Field(default=128, ge=16, multiple_of=4)
    """Side of the training crops in pixels, a multiple of 4 and at least 16."""
    quantise_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of the images whose latents skip the codebook (section 3.1: 10 %)."""
    commitment: float = Field(default=0.25, ge=0)
    codebook_weight: float = Field(default=1.0, ge=0)
    perceptual: Literal["vgg16", "pyramid"] = "pyramid"
    """vgg16 needs `vgg16_weights`; pyramid compares several scales and needs no weights."""
    vgg16_weights: str = ""
    """A safetensors file of VGG16 features with torchvision key names."""
    perceptual_weight: float = Field(default=0.1, ge=0)
    adversarial_weight: float = Field(default=0.01, ge=0)
    adversarial_start: int = Field(default=10_000 * 256, ge=0)
    """Images after which the discriminator joins."""
    discriminator_width: int = Field(default=64, gt=0)
    """Channels of the discriminator's first layer."""
    discriminator_depth: int = Field(default=6, gt=0)
    code_reset_after: int = Field(default=100, gt=0)
    """Optimizer steps without use after which a code is placed anew on a latent of the batch."""
    lora: LoraConfig | None = None
    """Train low-rank layers alone, on a `start` whose codebook and statistics stay. No other tool
    reads LoRAs of Stage A: the model folder has them in its weights."""


class StageAConfig(Section):
    model: StageAModel = StageAModel()
    training: StageATraining = StageATraining()

    @model_validator(mode="after")
    def _whole_everywhere(self) -> "StageAConfig":
        if self.training.sharded:
            raise ValueError(
                "stage_a.training.sharded is true, but Stage A is small and its codes are placed "
                "by hand, which needs it whole in every process; set it to false"
            )
        return self

    @model_validator(mode="after")
    def _has_features(self) -> "StageAConfig":
        if self.training.perceptual == "vgg16" and not self.training.vgg16_weights:
            raise ValueError(
                "stage_a.training.perceptual is vgg16, which needs weights; set "
                "stage_a.training.vgg16_weights to a safetensors file, or perceptual to pyramid"
            )
        return self

    @model_validator(mode="after")
    def _lora_fits(self) -> "StageAConfig":
        if (lora := self.training.lora) is None:
            return self
        if not self.training.init_from:
            raise ValueError(
                "stage_a.training.lora needs a model that it changes; set stage_a.training.init_from, "
                "or base, to a model folder"
            )
        if lora.text:
            raise ValueError("stage_a.training.lora.text is true, but Stage A reads no text")
        if lora.layers != "all":
            raise ValueError(
                f"stage_a.training.lora.layers is {lora.layers!r}, but Stage A has no attention; "
                "set it to 'all'"
            )
        return self
