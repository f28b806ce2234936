"""The results of a diagnosis, and their JSON file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from wuerstchen import __version__
from wuerstchen.evaluation.distribution_distance import ChannelStats, SemanticsDistance
from wuerstchen.evaluation.findings import Loss, Verdict
from wuerstchen.evaluation.metrics import Estimate
from wuerstchen.evaluation.reconstruction import Example
from wuerstchen.evaluation.report import Setting

BandValues = Mapping[str, float]


@dataclass(frozen=True)
class Detail:
    """How well held-out images are reconstructed."""

    psnr: tuple[Estimate, Estimate]
    """dB of Stage A alone, and of Stage B + A from the true semantics."""
    errors: Mapping[str, BandValues]
    """Mean squared errors of the two by band; the bands sum to the total."""
    error_fractions: tuple[float, float]
    """Of the mean squared error of Stage B + A: Stage A's part and Stage B's. They sum to 1;
    Stage B's is negative where it reduces the error."""
    band_fractions: BandValues
    """Stage A's part by band; the rest is Stage B's."""
    contrasts: Mapping[str, BandValues]
    """Contrast of each path over that of the originals, by band: below 1 is blur."""
    latent_error: float
    """Mean squared error of the latents that Stage B generates from true semantics, over the
    variance of latents."""


@dataclass(frozen=True)
class Recognition:
    """Whether the nearest training image shows the object of a training caption."""

    accuracy: tuple[Estimate, Estimate, Estimate]
    """By path."""
    lost: tuple[Loss, Loss, Loss]
    """By Stage A, B and C; they sum to all captions that are not recognised."""

    @property
    def loss_fractions(self) -> tuple[float, float, float] | None:
        """Each stage's part of the captions that are not recognised; None if all are."""
        missed = 1 - self.accuracy[2].value
        if missed <= 0:
            return None
        a, b, c = (loss.fraction / missed for loss in self.lost)
        return a, b, c


@dataclass(frozen=True)
class DenoisingCurves:
    """Mean squared errors of one stage's predicted noise by time, with equal noise at all times."""

    held_out: Sequence[float]
    training: Sequence[float]
    """On training images."""
    baseline: Sequence[float]
    """Of the best linear estimate from mean and variance."""

    @property
    def overfit(self) -> float:
        """Held-out over training error, each summed over all times; so are the next two."""
        return sum(self.held_out) / sum(self.training)

    @property
    def training_over_baseline(self) -> float:
        return sum(self.training) / sum(self.baseline)

    @property
    def held_out_over_baseline(self) -> float:
        return sum(self.held_out) / sum(self.baseline)


@dataclass(frozen=True)
class Diagnosis:
    """All figures, the verdict and example images."""

    settings: Mapping[str, Setting]
    detail: Detail
    recognition: Recognition
    semantics: SemanticsDistance
    true: ChannelStats
    """Of the semantics of held-out images."""
    generated: ChannelStats
    """Of the semantics that Stage C generates for their captions."""
    times: Sequence[float]
    """Of the denoising curves."""
    denoising_b: DenoisingCurves
    denoising_c: DenoisingCurves
    verdict: Verdict
    examples: Sequence[Example]

    def to_json(self) -> str:
        """All but the images; intervals are 95 %, n counts images."""
        detail, recognition, semantics = self.detail, self.recognition, self.semantics
        curves = {
            f"{name}_{stage}": values
            for stage, found in (("b", self.denoising_b), ("c", self.denoising_c))
            for name, values in (
                ("held_out", found.held_out),
                ("trained", found.training),
                ("guess", found.baseline),
            )
        }
        content = {
            "version": __version__,
            "settings": dict(self.settings),
            "verdict": {"limits": self.verdict.stage, "sentences": self.verdict.sentences},
            "detail": {
                "psnr": [asdict(each) for each in detail.psnr],
                "errors": detail.errors,
                "shares": detail.error_fractions,
                "band_shares": detail.band_fractions,
                "contrasts": detail.contrasts,
                "latent_error": detail.latent_error,
            },
            "following": {
                "ways": [asdict(each) for each in recognition.accuracy],
                "lost": [{"share": x.fraction, "sure": x.significant} for x in recognition.lost],
                "shares": recognition.loss_fractions,
            },
            "semantics": {
                "distance": semantics.frechet,
                "by_chance": semantics.chance,
                "contrast": semantics.std_ratio,
                "true": {"mean": self.true.mean, "spread": self.true.std},
                "drawn": {"mean": self.generated.mean, "spread": self.generated.std},
            },
            "denoising": {"times": self.times, **curves},
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
