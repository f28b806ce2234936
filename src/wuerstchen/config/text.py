"""Config of the text encoders."""

from pydantic import Field, model_validator

from wuerstchen.config.section import Section


class TextConfig(Section):
    """The text encoder: a small one trained with Stage C, or a published one, loaded frozen."""

    pretrained: str = ""
    """Folder of a CLIP text model and tokenizer for Stage C; empty: train a small one."""
    pretrained_b: str = ""
    """The same for Stage B, which has an encoder of its own in the released system."""
    vocab_size: int = Field(default=4096, ge=514)
    """Vocabulary of the small tokenizer, learned from the captions; 514 entries are special tokens
    and single bytes."""
    max_length: int = Field(default=77, gt=3)
    """Tokens per caption, including the start and end tokens."""
    width: int = Field(default=256, gt=0)
    depth: int = Field(default=4, gt=0)
    """Transformer layers."""
    heads: int = Field(default=4, gt=0)
    """Attention heads; must divide `width`."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "TextConfig":
        if self.width % self.heads:
            raise ValueError(
                f"text.width is {self.width}, which must be a multiple of text.heads, {self.heads}"
            )
        return self
