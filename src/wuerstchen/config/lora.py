"""Keys of fine-tuning: low-rank layers, and what a model shall not forget."""

from typing import Literal

from pydantic import Field

from wuerstchen.config.section import Section


class LoraConfig(Section):
    """Low-rank layers that are trained beside frozen weights (arXiv:2106.09685)."""

    rank: int = Field(default=16, gt=0)
    alpha: float | None = Field(default=None, gt=0)
    """What is learned counts alpha / rank; null: as much as the rank."""
    layers: Literal["attention", "all"] = "attention"
    """Queries, keys, values and outputs of the attention; or every linear layer and every
    convolution but the depthwise ones."""
    text: bool = False
    """Of Stage C: also of its text encoder, which is frozen otherwise."""


class PriorPreservationConfig(Section):
    """What a subject's class looked like before (DreamBooth, arXiv:2208.12242, section 3.2).

    The model that training starts from draws semantics for `caption`; nothing is decoded to
    images. Every image of the subject is learned together with one of them.
    """

    class_prompt: str = Field(min_length=1)
    """Of the class, such as `a photo of a dog`, where the subject is `a photo of sks dog`."""
    class_images: int = Field(default=100, gt=0)
    """Semantics that are drawn before the training."""
    weight: float = Field(default=1.0, gt=0)
    """Of their loss, beside that of the subject."""
