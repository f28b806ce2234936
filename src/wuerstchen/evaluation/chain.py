"""Images sent through one stage, two and all three, and what is lost on the way.

B images, S semantic channels, h x w semantic cells, T noise levels. The ways, in this order:
Stage A there and back, Stage B + A from the true semantics, all three stages from the caption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wuerstchen.data import Pairs
from wuerstchen.evaluation.denoising import errors_of_stage_b, errors_of_stage_c
from wuerstchen.evaluation.frequency_bands import band_powers, contrast_powers
from wuerstchen.evaluation.metrics import thumbnails
from wuerstchen.inference.generation_plan import Plan
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.noise import RandomStreams, seeded

WAYS = ("stage_a", "stage_b", "stage_c")
"""Named after the last stage that joins: each way has the stages of the one before it too."""


class Shown(NamedTuple):
    """An image to look at: (3, H, W) in [0, 1] each."""

    caption: str
    true: Tensor
    ways: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Passed:
    """What was measured of B images; the images themselves are let go, but for a few."""

    errors: Tensor
    """(B, 2, 3) mean squared errors of Stage A and of Stage B + A, by band."""
    contrasts: Tensor
    """(B, 4, 3) contrast of the true image and of the three ways, by band."""
    small: Tensor
    """(B, 3, 3, 32, 32) thumbnails of the three ways."""
    latent_errors: Tensor
    """(B,) mean squared errors of the latents that Stage B draws from the true semantics."""
    true: Tensor
    """(B, S, h, w) semantics of the images."""
    drawn: Tensor
    """(B, S, h, w) semantics that Stage C draws for their captions."""
    noise_b: Tensor
    """(B, T) denoising errors of Stage B."""
    noise_c: Tensor
    """(B, T) denoising errors of Stage C."""
    latents: Tensor
    """(B, 2, 4) mean and mean square of each channel of the latents of Stage A."""
    shown: list[Shown]


@dataclass(frozen=True)
class Chain:
    """A model, taken apart at its joints."""

    pipeline: Pipeline
    compressor: Compressor
    plan: Plan

    @torch.inference_mode()
    def send(self, pairs: Pairs, chosen: Sequence[int], seed: int, show: int) -> Passed:
        """Send images all ways; the k-th from seed + k.

        The last way makes what the pipeline draws for the caption with that seed.

        show  images to keep, from the first
        """
        pipeline, count = self.pipeline, len(chosen)
        image = torch.stack([pairs.image(i) for i in chosen]) / 255  # (B, 3, H, W)
        captions = [pairs[i].captions[0] for i in chosen]
        seen = image.to(pipeline.device, pipeline.dtype)
        latent = pipeline.stage_a.encode(seen)
        true = self.compressor(shrink(seen))
        draw = seeded(seed, count)
        drawn = self._semantics(captions, draw)
        # The same noise for true and for drawn semantics: what follows differs in these alone.
        twin = RandomStreams([generator.clone_state() for generator in draw.generators])
        from_true = self._latent(true, captions, twin)
        from_drawn = self._latent(drawn, captions, draw)
        ways = [
            pipeline.image_from_latents(each).float().cpu()
            for each in (latent, from_true, from_drawn)
        ]
        rows = zip(captions, image, *ways, strict=True)
        return Passed(
            errors=torch.stack([band_powers(way - image) for way in ways[:2]], dim=1),
            contrasts=torch.stack([contrast_powers(x) for x in (image, *ways)], dim=1),
            small=torch.stack([thumbnails(way) for way in ways], dim=1),
            latent_errors=(from_true - latent).float().square().mean(dim=(1, 2, 3)).cpu(),
            true=true.float().cpu(),
            drawn=drawn.float().cpu(),
            noise_b=errors_of_stage_b(pipeline, latent, true, captions, seeded(seed, count)),
            noise_c=errors_of_stage_c(pipeline, true, captions, seeded(seed, count)),
            latents=channel_moments(latent).cpu(),
            shown=[Shown(caption, x, (a, b, c)) for caption, x, a, b, c in rows][:show],
        )

    def _semantics(self, captions: Sequence[str], draw: RandomStreams) -> Tensor:
        pipeline = self.pipeline
        return pipeline.semantics_from_text(
            pipeline.encode(pipeline.text_c, captions),
            draw,
            self.plan.size,
            self.plan.prior,
            unwanted=pipeline.encode(pipeline.text_c, [""] * len(captions)),
        )

    def _latent(self, semantics: Tensor, captions: Sequence[str], draw: RandomStreams) -> Tensor:
        pipeline = self.pipeline
        return pipeline.latents_from_semantics(
            semantics,
            pipeline.encode(pipeline.text_b, captions),
            draw,
            self.plan.decoder,
            unwanted=pipeline.encode(pipeline.text_b, [""] * len(captions)),
        )


def joined(parts: Sequence[Passed]) -> Passed:
    """Batches as one."""
    return Passed(
        errors=torch.cat([part.errors for part in parts]),
        contrasts=torch.cat([part.contrasts for part in parts]),
        small=torch.cat([part.small for part in parts]),
        latent_errors=torch.cat([part.latent_errors for part in parts]),
        true=torch.cat([part.true for part in parts]),
        drawn=torch.cat([part.drawn for part in parts]),
        noise_b=torch.cat([part.noise_b for part in parts]),
        noise_c=torch.cat([part.noise_c for part in parts]),
        latents=torch.cat([part.latents for part in parts]),
        shown=[each for part in parts for each in part.shown],
    )


def channel_moments(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2, C): mean and mean square of every channel."""
    x = x.double()
    return torch.stack([x.mean(dim=(2, 3)), x.square().mean(dim=(2, 3))], dim=1)


def variances(moments: Tensor) -> Tensor:
    """(B, 2, C) of `channel_moments` to the (C,) variances over all images and cells."""
    mean, square = moments.mean(dim=0).unbind()
    return square - mean.square()
