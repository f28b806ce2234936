"""Stage C with its text encoder on cached semantics: its loss, and probes of what it draws.

B images, S channels that Stage C diffuses, h x w semantic cells.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speedrun.text import new_text_encoder
from benchmarks.studies.learn_faster.encoded import LABELS, Split
from benchmarks.studies.learn_faster.probes import Probes
from benchmarks.studies.learn_faster.train import Scores
from wuerstchen import diffusion
from wuerstchen.config import Config
from wuerstchen.geometry import scale_semantics, unscale_semantics
from wuerstchen.models.pretrain_heads import SemanticsHead
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.training.loss_weighting import weighting
from wuerstchen.training.pretrain_text import TextAndHead
from wuerstchen.training.stage import ParameterGroup, even_times, trained_parameters
from wuerstchen.training.stage_c import PRETRAINED_RATE, TextAndStageC

STEPS, GUIDANCE = 6, diffusion.Guidance(3.0)

COUNTED = (
    "test object",
    "test style",
    "test background",
    "held-out object",
    "held-out background",
)
"""Shares in the score. On true semantics of held-out pairs the probe of the style is worse than
chance: it has learned which styles an object has."""

HEAD_WIDTH = 256
"""Of the throwaway network that pretrains the text encoder."""


class Space:
    """What Stage C diffuses: scaled semantics, or their first principal components."""

    def __init__(self, semantics: Tensor, components: int) -> None:
        """
        semantics   (N, D, h, w) unscaled, of the training scenes
        components  0: the semantics as they are
        """
        self._axes: Tensor | None = None
        if components:
            cells = scale_semantics(semantics).permute(0, 2, 3, 1).flatten(0, 2)  # (N h w, D)
            self._mean = cells.mean(dim=0)
            centred = cells - self._mean
            _, axes = torch.linalg.eigh(centred.T @ centred / len(cells))
            self._axes = axes.flip(1)[:, :components]  # (D, S)

    def enter(self, semantics: Tensor) -> Tensor:
        """(B, D, h, w) unscaled semantics to (B, S, h, w)."""
        scaled = scale_semantics(semantics)
        if self._axes is None:
            return scaled
        return ((scaled.movedim(1, -1) - self._mean) @ self._axes).movedim(-1, 1).contiguous()

    def leave(self, drawn: Tensor) -> Tensor:
        """(B, S, h, w) to unscaled (B, D, h, w) semantics."""
        if self._axes is not None:
            drawn = (drawn.movedim(1, -1) @ self._axes.T + self._mean).movedim(-1, 1)
        return unscale_semantics(drawn)


class Captions:
    """A random caption of each training scene."""

    def __init__(self, train: Split) -> None:
        self._captions = train.captions

    def __call__(self, rows: Tensor, generator: torch.Generator) -> list[str]:
        values = torch.rand(len(rows), generator=generator).tolist()
        of_rows = [self._captions[row] for row in rows.tolist()]
        return [of[int(value * len(of))] for of, value in zip(of_rows, values, strict=True)]


class TextLearner:
    """The loss of `TextPretrainer`: semantics from a caption in one pass."""

    def __init__(self, text: TextEncoder, space: Space, train: Split) -> None:
        self._data, self._captions = space.enter(train.semantics), Captions(train)
        _, *shape = self._data.shape
        head = SemanticsHead(text.width, HEAD_WIDTH, (shape[0], shape[1], shape[2]))
        self.network: nn.Module = TextAndHead(text, head)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(trained_parameters(self.network), 1.0)]

    def loss(self, batch: int, generator: torch.Generator, /) -> Tensor:
        rows = torch.randint(len(self._data), (batch,), generator=generator)
        return F.mse_loss(self.network(self._captions(rows, generator)), self._data[rows])


class StageCLearner:
    """The loss of `StageCTrainer`."""

    def __init__(
        self,
        config: Config,
        text: TextEncoder,
        space: Space,
        train: Split,
        *,
        pretrained: bool,
        semantics_noise: float,
    ) -> None:
        """semantics_noise: its standard deviation relative to that of the semantics"""
        self._training = config.stage_c.training
        self._weighting = weighting(self._training.loss_weighting)
        self._data, self._captions = space.enter(train.semantics), Captions(train)
        self._pretrained = pretrained
        self._semantics_noise = semantics_noise * float(self._data.std())
        self.text, self.stage_c = text, StageC(config.stage_c.model)
        if self._training.head == "difference":
            self.stage_c.hold_divisor()
        self.network: nn.Module = TextAndStageC(text, self.stage_c)

    def parameter_groups(self) -> list[ParameterGroup]:
        rate = PRETRAINED_RATE if self._pretrained else 1.0
        return [
            ParameterGroup(trained_parameters(self.stage_c), 1.0),
            ParameterGroup(trained_parameters(self.text), rate),
        ]

    def loss(self, batch: int, generator: torch.Generator, /) -> Tensor:
        rows = torch.randint(len(self._data), (batch,), generator=generator)
        captions = self._captions(rows, generator)
        uniform, dropped = torch.rand(2, batch, generator=generator)
        t = diffusion.training_times(uniform, self._training.high_noise_fraction)
        drop = (dropped < self._training.caption_dropout).tolist()
        captions = ["" if empty else each for empty, each in zip(drop, captions, strict=True)]
        data = self._data[rows]
        if self._semantics_noise:
            data = data + self._semantics_noise * torch.randn(data.shape, generator=generator)
        noise = torch.randn(data.shape, generator=generator)
        error = noise_error(self.network, captions, data, noise, t)
        return (self._weighting(t, error) * error).mean()

    def draw(self, captions: Sequence[str], shape: tuple[int, ...]) -> Tensor:
        """(B, S, h, w) guided samples; shape: S, h, w."""
        generator = torch.Generator().manual_seed(0)
        text = self.text([*captions, *[""] * len(captions)])
        both = self.stage_c.condition(text)
        positive = self.stage_c.condition(text[: len(captions)])
        denoise = diffusion.guided(self.stage_c, both, positive, GUIDANCE)
        start = torch.randn(len(captions), *shape, generator=generator)
        times = diffusion.tuned_times(STEPS)
        *_, drawn = diffusion.SAMPLERS["dpm++2m"](denoise, start, times, torch.randn_like)
        return drawn


def noise_error(
    network: nn.Module, captions: Sequence[str], data: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """(B,) mean squared error of the predicted noise."""
    predicted = network(captions, diffusion.add_noise(data, noise, t), t)
    error: Tensor = (predicted - noise).square().mean(dim=(1, 2, 3))
    return error


def score_stage_c(
    learner: StageCLearner, space: Space, probes: Probes, splits: dict[str, Split]
) -> Scores:
    """Shares of probes right on drawn semantics over those on true ones, and held-out errors.

    `score` is the mean of the shares in `COUNTED`.
    """
    scores: Scores = {}
    for name in ("test", "held-out"):
        split = splits[name]
        first = [captions[0] for captions in split.captions]
        data = space.enter(split.semantics)
        drawn = space.leave(learner.draw(first, tuple(data.shape[1:])))
        found = probes.right(drawn, split.labels)
        true = probes.right(split.semantics, split.labels)
        shares = {label: found[label] / max(true[label], 1e-9) for label in LABELS}
        scores |= {f"{name} {label}": share for label, share in shares.items()}
        generator = torch.Generator().manual_seed(0)
        t = even_times(len(data), data.device)
        noise = torch.randn(data.shape, generator=generator)
        error = noise_error(learner.network, first, data, noise, t)
        scores[f"{name} noise error"] = float(error.mean())
        scores[f"{name} v error"] = float((error / diffusion.alpha_bar(t)).mean())
    scores["score"] = sum(scores[name] for name in COUNTED) / len(COUNTED)
    return scores


def text_encoder(config: Config, train: Split) -> TextEncoder:
    """A new encoder for the training captions, which it tokenises once."""
    captions = sorted({caption for of_scene in train.captions for caption in of_scene})
    encoder = new_text_encoder(config.text, captions)
    encoder.keep(captions, torch.device("cpu"))
    return encoder
