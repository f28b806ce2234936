"""Config keys shared by all training runs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from wuerstchen.config.section import Section

Precision = Literal["auto", "fp32", "bf16"]
LossWeight = Literal["p2", "data", "data_uncapped", "v", "flow", "adaptive"]
"""p2: used for the released weights; data, v, flow: the error of these instead of the noise's, that
of the data with a cap unless uncapped; adaptive: all noise levels contribute equally, whatever
their error (see diffusion/)."""

Prediction = Literal["noise", "v", "flow", "data"]
"""The quantity that a network's output represents."""

Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Section):
    """How one stage is trained. Progress is counted in images, independent of the batch size."""

    images: int = Field(ge=0)
    """Images to train on in total, counting repeats; 0 copies the weights of `init_from`."""
    init_from: str = ""
    """Model folder whose weights for this stage training starts from; `stickers`: the bundled
    model; empty: random initialisation."""
    batch_size: int = Field(default=32, gt=0)
    """Images per optimizer step, summed over all devices and accumulation steps."""
    gradient_accumulation: int = Field(default=1, gt=0)
    """Backward passes per optimizer step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate, reached after the warm-up."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon (arXiv:2502.16982) for the matrices of linear layers, AdamW for all else."""
    muon_rate: float = Field(default=3.0, gt=0)
    """Learning rate of Muon relative to `learning_rate`."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Betas of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=10_000, ge=0)
    """Optimizer steps over which the learning rate rises linearly from zero."""
    lr_schedule: Literal["constant", "cosine", "linear", "warmup_stable_decay"] = "constant"
    """Learning rate after the warm-up: constant, or decay to a hundredth along a cosine or a line;
    warmup_stable_decay: constant, then linear decay over the last fifth of the run."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    ema_decay: Decay | tuple[Decay, ...] = 0.999
    """Decay per step of the EMA weights, which are the exported ones. From a list, the EMA with the
    lowest validation loss is exported."""
    export: Literal["last", "best"] = "last"
    """Which weights to export: the last ones, or those with the lowest validation loss."""
    precision: Precision = "auto"
    """auto: bf16 on accelerators that support it, fp32 elsewhere."""
    sharded: bool = False
    """Shard weights, gradients, optimizer state and EMA over the processes (FSDP2) instead of
    replicating them (DDP)."""
    checkpoint_every: int = Field(default=100_000, gt=0)
    """Images between checkpoints."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Newest checkpoints to keep; the one with the lowest validation loss is kept as well."""
    log_every: int = Field(default=20, gt=0)
    """Optimizer steps between log entries."""
    validate_every: int = Field(default=100_000, gt=0)
    """Images between validations, which compute the validation loss and a grid of images."""
    validation_images: int = Field(default=64, gt=0)
    """Held-out images used for each validation."""

    @property
    def ema_decays(self) -> tuple[float, ...]:
        return self.ema_decay if isinstance(self.ema_decay, tuple) else (self.ema_decay,)

    @field_validator("ema_decay")
    @classmethod
    def _not_empty(cls, ema: Decay | tuple[Decay, ...]) -> Decay | tuple[Decay, ...]:
        if ema == ():
            raise ValueError("expected at least one decay, found none")
        return ema

    @model_validator(mode="after")
    def _whole_matrices(self) -> "TrainingConfig":
        if self.sharded and self.optimizer == "muon":
            raise ValueError(
                "optimizer is muon, which needs whole matrices, but sharded is true, which gives "
                "each process a part of them; set optimizer to adamw, or sharded to false"
            )
        return self

    @model_validator(mode="after")
    def _has_weights(self) -> "TrainingConfig":
        if self.images == 0 and not self.init_from:
            raise ValueError(
                "images is 0, which copies the weights of another model, but none is named; set "
                "base, or init_from here, to a model folder or stickers"
            )
        return self


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


class PretrainingConfig(TrainingConfig):
    """Training of one component from scratch, before its stage is trained."""

    images: int = Field(gt=0)
    """Images to train on in total, counting repeats."""

    @model_validator(mode="after")
    def _from_scratch(self) -> "PretrainingConfig":
        if self.init_from:
            raise ValueError(
                f"init_from is {self.init_from!r}, but a pretraining starts from scratch; leave it "
                "empty, and set training.init_from to start the stage from a model"
            )
        return self
