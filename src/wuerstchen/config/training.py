"""Keys that the trainings of all stages share."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from wuerstchen.config.section import Section

Precision = Literal["auto", "fp32", "bf16"]
LossWeight = Literal["p2", "data", "v", "flow", "adaptive"]
"""p2: what trained the released weights; data, v, flow: the error of these instead of the noise's;
adaptive: every noise level weighs the same, whatever its error is (see diffusion/)."""

Prediction = Literal["noise", "v", "flow"]
"""What a network's output stands for."""


Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Section):
    """How one stage is trained. Progress is counted in images, whatever a batch is."""

    images: int = Field(ge=0)
    """Images to see in all, repeats included; 0 takes over the weights of `start` as they are."""
    init_from: str = ""
    """A model folder whose weights of this stage training starts from; `emoji`: the bundled model;
    empty: from scratch."""
    batch_size: int = Field(default=32, gt=0)
    """Images per optimizer step, over all devices and accumulation steps together."""
    gradient_accumulation: int = Field(default=1, gt=0)
    """Backward passes per optimizer step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=10_000, ge=0)
    """Optimizer steps in which the learning rate grows from zero."""
    lr_schedule: Literal["constant", "cosine", "linear", "late"] = "constant"
    """What the learning rate does after the warm-up: nothing, or fall to a hundredth along a cosine
    or a line; late: constant, then along a line in the last fifth of the run."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Largest norm of a gradient."""
    ema_decay: Decay | tuple[Decay, ...] = 0.999
    """Decay per step of the averaged weights, which are the ones that are exported. Of several the
    one with the lowest held-out loss is."""
    export: Literal["last", "best"] = "last"
    """Which weights the stage ends with: the last, or those of the look with the lowest held-out
    loss."""
    precision: Precision = "auto"
    """auto: bf16 on accelerators that have it, fp32 elsewhere."""
    sharded: bool = False
    """Spread weights, gradients, optimizer and averages over the processes (FSDP2), instead of a
    copy of everything in each (DDP)."""
    checkpoint_every: int = Field(default=100_000, gt=0)
    """Images between two checkpoints."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Newest checkpoints that stay; the best by held-out loss stays beside them."""
    log_every: int = Field(default=20, gt=0)
    """Optimizer steps between two entries of the log."""
    validate_every: int = Field(default=100_000, gt=0)
    """Images between two looks: held-out loss and a grid of images."""
    validation_images: int = Field(default=64, gt=0)
    """Held-out images per look."""

    @property
    def ema_decays(self) -> tuple[float, ...]:
        """The decays of all averages."""
        return self.ema_decay if isinstance(self.ema_decay, tuple) else (self.ema_decay,)

    @field_validator("ema_decay")
    @classmethod
    def _averages(cls, ema: Decay | tuple[Decay, ...]) -> Decay | tuple[Decay, ...]:
        if ema == ():
            raise ValueError("expected at least one decay, found none")
        return ema

    @model_validator(mode="after")
    def _has_weights(self) -> "TrainingConfig":
        if self.images == 0 and not self.init_from:
            raise ValueError(
                "images is 0, which takes over the weights of another model, but nothing names "
                "one; set base, or start here, to a model folder or emoji"
            )
        return self


class PretrainingConfig(TrainingConfig):
    """What is learned before a stage, from nothing."""

    images: int = Field(gt=0)

    @model_validator(mode="after")
    def _from_nothing(self) -> "PretrainingConfig":
        if self.init_from:
            raise ValueError(
                f"start is {self.init_from!r}, but a pretraining begins with new networks; leave it "
                "empty, and set training.init_from where the stage shall go on from a model"
            )
        return self
