"""Stage B on cached latents and semantics: its loss, and the images that it draws with Stage A.

B images, S semantic channels, h x w semantic cells.
"""

import torch
from torch import Tensor, nn

from benchmarks.studies.learn_faster.encoded import Split
from benchmarks.studies.learn_faster.train import Scores
from benchmarks.studies.stage_b_targets.scores import image_scores
from wuerstchen import diffusion
from wuerstchen.config import Config
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.training.loss_weighting import weighting
from wuerstchen.training.stage import ParameterGroup, trained_parameters
from wuerstchen.training.stage_b import SEMANTIC_NOISE_END, CompressorAndStageB

SAMPLERS = {
    "1": ("ddim", (1.0, 0.0)),
    "2": ("ddim", diffusion.DATA_TIMES),
    "12": ("ddpm", tuple(diffusion.uniform_times(12))),
}
"""Sampler and times by number of steps."""

PICTURES = 6
"""Scenes in the scores."""


class StageBLearner:
    """The loss of `StageBTrainer` with the semantics in place of the images."""

    def __init__(self, config: Config, train: Split) -> None:
        self._training = config.stage_b.training
        self._weighting = weighting(self._training.loss_weighting)
        self._latents, self._semantics = train.latents, train.semantics[: len(train.latents)]
        self.stage_b = StageB(config.stage_b.model)
        self.stage_b.hold_text()
        self._text_width = config.stage_b.model.text_width
        self._mappers = list(self.stage_b.semantics_mappers.parameters())
        with torch.no_grad():
            for mapper in self._mappers:
                if mapper.dim() > 1:
                    mapper.div_(SEMANTICS_SCALE)
        self.network: nn.Module = CompressorAndStageB(nn.Identity(), self.stage_b, frozen=True)  # type: ignore[arg-type]

    def parameter_groups(self) -> list[ParameterGroup]:
        mappers = {id(parameter) for parameter in self._mappers}
        others = [p for p in trained_parameters(self.stage_b) if id(p) not in mappers]
        return [ParameterGroup(others, 1.0), ParameterGroup(self._mappers, 1 / SEMANTICS_SCALE)]

    def loss(self, batch: int, generator: torch.Generator, /) -> Tensor:
        rows = torch.randint(len(self._latents), (batch,), generator=generator)
        uniform, noised, late, dropped = torch.rand(4, batch, generator=generator)
        latent, semantics = self._latents[rows], self._semantics[rows]
        t = diffusion.training_times(uniform, self._training.high_noise_fraction)
        semantic_t = late * SEMANTIC_NOISE_END * (noised < self._training.semantics_noise)
        noise = torch.randn(latent.shape, generator=generator)
        predicted = self.network(
            semantics,
            diffusion.add_noise(latent, noise, t),
            t,
            self._text(batch),
            torch.randn(semantics.shape, generator=generator),
            semantic_t,
            (dropped < self._training.semantics_dropout).view(-1, 1, 1, 1),
        )
        error: Tensor = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (self._weighting(t, error) * error).mean()

    def draw(self, semantics: Tensor, steps: str) -> Tensor:
        """(B, 4, H, W) latents of unscaled (B, S, h, w) semantics by one of `SAMPLERS`."""
        sampler, times = SAMPLERS[steps]
        generator = torch.Generator().manual_seed(0)
        side = self._latents.shape[-1]
        condition = self.stage_b.condition(semantics, self._text(len(semantics)), (side, side))
        start = torch.randn(len(semantics), 4, side, side, generator=generator)
        denoise = diffusion.unguided(self.stage_b, condition)
        latents: Tensor
        *_, latents = diffusion.SAMPLERS[sampler](
            denoise, start, times, lambda x: torch.randn(x.shape, generator=generator)
        )
        return latents

    def _text(self, count: int) -> Tensor:
        return torch.zeros(count, 1, self._text_width)


def score_stage_b(learner: StageBLearner, stage_a: StageA, held_out: Split) -> Scores:
    """PSNR and edges of the images drawn from true semantics, by number of steps."""
    real = held_out.images[:PICTURES].float() / 255
    semantics = held_out.semantics[: len(real)]
    scores: Scores = {}
    for steps in SAMPLERS:
        found = image_scores(stage_a.decode(learner.draw(semantics, steps)), real)
        scores |= {f"{name}_{steps}": found[name] for name in ("psnr", "edges")}
    return scores
