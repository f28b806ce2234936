"""Config of Stage A."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.config.training import LoraConfig, TrainingConfig


class StageAModel(Section):
    """VQGAN f4. Defaults are the published sizes (18,406,894 parameters)."""

    width: int = Field(default=384, gt=0, multiple_of=2)
    """Channels at a quarter of the image's resolution; half as many at half of it."""
    depth: int = Field(default=12, gt=0)
    """Decoder blocks at the latent's resolution."""
    latent_channels: Literal[4] = 4
    codebook: int = Field(default=8192, gt=1)
    """Number of codes."""
    scale: float = Field(default=0.3764, gt=0)
    """Latents are divided by this after encoding; training measures it."""


class StageATraining(TrainingConfig):
    """Defaults of the paper, appendix E.1."""

    images: int = Field(default=500_000 * 256, ge=0)
    batch_size: int = Field(default=256, gt=0)
    crop_size: int = Field(default=128, ge=16, multiple_of=4)
    """Side of the random training crops in pixels."""
    quantise_dropout: float = Field(default=0.1, ge=0, le=1)
    """Fraction of the images whose latents bypass the codebook (section 3.1: 10 %)."""
    commitment_weight: float = Field(default=0.25, ge=0)
    codebook_weight: float = Field(default=1.0, ge=0)
    perceptual_loss: Literal["vgg16", "pyramid"] = "pyramid"
    """vgg16 needs `vgg16_weights`; pyramid compares several scales and needs no weights."""
    vgg16_weights: str = ""
    """A safetensors file of VGG16 features with torchvision key names."""
    perceptual_weight: float = Field(default=0.1, ge=0)
    adversarial_weight: float = Field(default=0.01, ge=0)
    adversarial_start: int = Field(default=10_000 * 256, ge=0)
    """Images after which the discriminator is trained and used."""
    discriminator_width: int = Field(default=64, gt=0)
    """Channels of the discriminator's first layer."""
    discriminator_depth: int = Field(default=6, gt=0)
    """Convolutions of the discriminator."""
    code_reset_after: int = Field(default=100, gt=0)
    """Optimizer steps without use after which a code is reset to a latent of the batch."""
    lora: LoraConfig | None = None
    """Train only low-rank layers on top of `init_from`; its codebook and statistics are fixed. The
    model folder has them merged, as no other tool reads LoRAs of Stage A."""


class StageAConfig(Section):
    model: StageAModel = StageAModel()
    training: StageATraining = StageATraining()

    @model_validator(mode="after")
    def _keys_agree(self) -> "StageAConfig":
        training, lora = self.training, self.training.lora
        if training.sharded:
            raise ValueError(
                "stage_a.training.sharded is true, but Stage A updates its codebook directly, "
                "which needs a full copy in every process; set it to false"
            )
        if training.perceptual_loss == "vgg16" and not training.vgg16_weights:
            raise ValueError(
                "stage_a.training.perceptual_loss is vgg16, which needs weights; set "
                "stage_a.training.vgg16_weights to a file, or perceptual_loss to pyramid"
            )
        if lora is not None and not training.init_from:
            raise ValueError(
                "stage_a.training.lora needs a model to fine-tune; set stage_a.training.init_from, "
                "or base, to a model folder"
            )
        if lora is not None and lora.train_text_encoder:
            raise ValueError(
                "stage_a.training.lora.train_text_encoder is true, but Stage A reads no text"
            )
        if lora is not None and lora.layers != "all":
            raise ValueError(
                f"stage_a.training.lora.layers is {lora.layers!r}, but Stage A has no attention; "
                "set it to 'all'"
            )
        return self
