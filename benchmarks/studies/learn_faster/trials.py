"""The trials, most important first: single changes of the published recipe (base.yaml)."""

from dataclasses import dataclass

V = ("stage_c.model.predicts=v", "stage_c.training.loss_weighting=v")
LATE_C = ("stage_c.training.high_noise_fraction=0.8",)
MUON_C = ("stage_c.training.optimizer=muon",)
DATA_C = ("stage_c.model.predicts=data", "stage_c.training.loss_weighting=v")
PLAIN_C = ("stage_c.model.predicts=data", "stage_c.training.loss_weighting=data_uncapped")
TODAY_C = (*V, *LATE_C, *MUON_C)
"""The recipe of the config `small`, and of `tiny` before these trials."""

CHANNELS = (
    "compressor.channels",
    "stage_b.model.semantic_channels",
    "stage_c.model.semantic_channels",
)

DATA = ("stage_b.model.predicts=data", "stage_b.training.loss_weighting=data_uncapped")
LATE_B = ("stage_b.training.high_noise_fraction=0.7", "stage_b.training.semantics_dropout=0.02")
MUON_B = ("stage_b.training.optimizer=muon",)
TODAY_B = (*DATA, *LATE_B, *MUON_B)


@dataclass(frozen=True)
class Trial:
    """A recipe of one stage."""

    name: str
    """It begins with the letter of the stage."""
    overrides: tuple[str, ...]
    """Of the config."""
    warm_start: int = 0
    """Images of a pretraining of the text encoder, counted with the trial's compute."""
    components: int = 0
    """Stage C diffuses this many principal components of the semantics; 0: the semantics."""
    semantics_noise: float = 0.0
    """Standard deviation of noise on the training semantics, relative to theirs."""

    @property
    def stage(self) -> str:
        return self.name[0]


TRIALS = (
    Trial("c-paper", ()),
    Trial("c-today", TODAY_C),
    Trial("b-paper", ()),
    Trial("b-today", TODAY_B),
    Trial("c-v", (*V, *LATE_C)),
    Trial("c-muon", MUON_C),
    Trial("c-data", (*DATA_C, *LATE_C)),
    Trial("c-data-muon", (*DATA_C, *LATE_C, *MUON_C)),
    Trial("c-data-plain", (*PLAIN_C, *LATE_C)),
    Trial("c-data-plain-muon", (*PLAIN_C, *LATE_C, *MUON_C)),
    Trial("c-today-warm", TODAY_C, warm_start=12_000),
    Trial(
        "c-today-third",
        (*TODAY_C, "stage_c.training.images=8000", "stage_c.training.lr_schedule=linear"),
    ),
    Trial("b-data", (*DATA, *LATE_B)),
    Trial("c-today-batch-256", (*TODAY_C, "stage_c.training.batch_size=256")),
    Trial(
        "c-today-8-channels",
        (*TODAY_C, *(f"{part}=8" for part in CHANNELS)),
        components=8,
    ),
    Trial("c-today-noised", TODAY_C, semantics_noise=0.3),
    Trial("b-muon", MUON_B),
    Trial("b-today-batch-32", (*TODAY_B, "stage_b.training.batch_size=32")),
    Trial("c-paper-warm", (), warm_start=12_000),
)
