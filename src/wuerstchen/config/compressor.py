"""Config of the compressor, which is trained together with Stage B."""

from pydantic import Field

from wuerstchen.config.section import Section


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
