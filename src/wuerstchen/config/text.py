"""Keys of the text encoders."""

from pydantic import Field, model_validator

from wuerstchen.config.section import Section


class TextConfig(Section):
    """The text encoder: a small one trained with Stage C, or a published one, loaded frozen."""

    pretrained: str = ""
    """Folder of a CLIP text model and tokenizer for Stage C; empty: train a small one."""
    pretrained_b: str = ""
    """The same for Stage B, which in the released system has an encoder of its own."""
    vocabulary: int = Field(default=4096, ge=514)
    """Tokens of the small tokenizer, learned from the captions; 514 are marks and letters."""
    length: int = Field(default=77, gt=3)
    """Tokens per caption, start and end included."""
    width: int = Field(default=256, gt=0)
    depth: int = Field(default=4, gt=0)
    heads: int = Field(default=4, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> "TextConfig":
        if self.width % self.heads:
            raise ValueError(
                f"text.width is {self.width}, which text.heads, {self.heads}, must divide"
            )
        return self
