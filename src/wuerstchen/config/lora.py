"""Config of fine-tuning: LoRA and prior preservation."""

from typing import Literal

from pydantic import Field

from wuerstchen.config.section import Section


class LoraConfig(Section):
    """Low-rank layers trained on top of frozen weights (arXiv:2106.09685)."""

    rank: int = Field(default=16, gt=0)
    """Rank of the update matrices."""
    alpha: float | None = Field(default=None, gt=0)
    """The update is scaled by alpha / rank; null: alpha equals the rank."""
    layers: Literal["attention", "all"] = "attention"
    """attention: its query, key, value and output layers; all: every linear layer and every
    convolution except depthwise ones."""
    train_text_encoder: bool = False
    """Also train low-rank layers of the text encoder (Stage C only)."""


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
