"""Keys of the text encoders."""

from pydantic import Field

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
