"""What a diagnosis found, by joint: data, and how it is written as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from wuerstchen import __version__
from wuerstchen.evaluation.advice import Lost, Verdict
from wuerstchen.evaluation.chain import Shown
from wuerstchen.evaluation.distances import Gap, Moments
from wuerstchen.evaluation.metrics import Figure
from wuerstchen.evaluation.report import Setting


@dataclass(frozen=True)
class Detail:
    """How much of held-out images is left."""

    psnr: tuple[Figure, Figure]
    """dB of Stage A alone, and of Stage B + A from the true semantics."""
    errors: Mapping[str, Mapping[str, float]]
    """Mean squared errors of the two by band; those of all bands add up to the whole."""
    shares: tuple[float, float]
    """Of the mean squared error of Stage B + A: what Stage A brings, what Stage B adds. They add
    up to 1; Stage B's is below 0 where it mends more than it spoils."""
    band_shares: Mapping[str, float]
    """Stage A's by band; the rest is Stage B's."""
    contrasts: Mapping[str, Mapping[str, float]]
    """Of the three ways by band, over that of the true images: below 1 is blur."""
    latent_error: float
    """Mean squared error of the latents that Stage B draws from true semantics, over the
    variance of latents."""


@dataclass(frozen=True)
class Following:
    """Whether the nearest training image shows the object of a training caption."""

    ways: tuple[Figure, Figure, Figure]
    """After Stage A alone, after Stage B + A from the true semantics, and from the caption."""
    lost: tuple[Lost, Lost, Lost]
    """By Stage A, B and C: together all captions that are not followed."""

    @property
    def shares(self) -> tuple[float, float, float] | None:
        """Of the captions that are not followed, those of each stage; they add up to 1.

        None where all are followed.
        """
        whole = 1 - self.ways[2].value
        if whole <= 0:
            return None
        a, b, c = (each.share / whole for each in self.lost)
        return a, b, c


@dataclass(frozen=True)
class Denoising:
    """Mean squared errors of the predicted noise by time, with the same noise at all times."""

    times: Sequence[float]
    held_out_b: Sequence[float]
    trained_b: Sequence[float]
    """On training images."""
    guess_b: Sequence[float]
    """Left to who knows only the mean and variance of the data."""
    held_out_c: Sequence[float]
    trained_c: Sequence[float]
    guess_c: Sequence[float]

    @property
    def overfit_b(self) -> float:
        """Held-out error over that on training images, both over all times."""
        return sum(self.held_out_b) / sum(self.trained_b)

    @property
    def overfit_c(self) -> float:
        return sum(self.held_out_c) / sum(self.trained_c)

    @property
    def learned_b(self) -> float:
        """Error on training images over that of the guess, both over all times."""
        return sum(self.trained_b) / sum(self.guess_b)

    @property
    def learned_c(self) -> float:
        return sum(self.trained_c) / sum(self.guess_c)

    @property
    def new_b(self) -> float:
        """The same of the held-out error."""
        return sum(self.held_out_b) / sum(self.guess_b)

    @property
    def new_c(self) -> float:
        return sum(self.held_out_c) / sum(self.guess_c)


@dataclass(frozen=True)
class Diagnosis:
    """Figures of every joint, the verdict, and images to look at."""

    settings: Mapping[str, Setting]
    detail: Detail
    following: Following
    semantics: Gap
    true: Moments
    """Of the semantics of held-out images."""
    drawn: Moments
    """Of the semantics that Stage C draws for their captions."""
    denoising: Denoising
    verdict: Verdict
    shown: Sequence[Shown]

    def to_json(self) -> str:
        """All but the images; intervals are 95 %, n counts images."""
        content = {
            "version": __version__,
            "settings": dict(self.settings),
            "verdict": asdict(self.verdict),
            "detail": asdict(self.detail),
            "following": {**asdict(self.following), "shares": self.following.shares},
            "semantics": {
                **asdict(self.semantics),
                "true": asdict(self.true),
                "drawn": asdict(self.drawn),
            },
            "denoising": asdict(self.denoising),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
