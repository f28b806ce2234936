"""Keys that the trainings of all stages share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section

Precision = Literal["auto", "fp32", "bf16"]
LossWeight = Literal["p2", "data"]
"""p2: what trained the released weights; data: error of the data itself (see diffusion/)."""


Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Section):
    """How one stage is trained. Progress is counted in pictures, so that batches may change."""

    images: int = Field(ge=0)
    """Pictures to see in all, repeats included; 0 takes over the weights of `start` as they are."""
    start: str = ""
    """A model folder whose weights of this stage training starts from; empty: from scratch."""
    batch: int = Field(default=32, gt=0)
    """Pictures per optimizer step, over all devices and accumulation steps together."""
    accumulate: int = Field(default=1, gt=0)
    """Backward passes per optimizer step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: int = Field(default=10_000, ge=0)
    """Optimizer steps in which the learning rate grows from zero."""
    decay: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; cosine ends at a hundredth."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of a gradient."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay per step of the averaged weights, which are the ones that are exported."""
    precision: Precision = "auto"
    """auto: bf16 on accelerators that have it, fp32 elsewhere."""
    save_every: int = Field(default=100_000, gt=0)
    """Pictures between two checkpoints."""
    look_every: int = Field(default=100_000, gt=0)
    """Pictures between two looks: held-out loss and a grid of pictures."""
    look_at: int = Field(default=64, gt=0)
    """Held-out pictures per look."""

    @model_validator(mode="after")
    def _has_weights(self) -> "TrainingConfig":
        if self.images == 0 and not self.start:
            raise ValueError("training.images is 0 and training.start names no model folder")
        return self
