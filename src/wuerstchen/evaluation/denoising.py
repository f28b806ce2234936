"""How well Stages B and C tell noise from data, by noise level.

B images, S semantic channels, h x w semantic cells, L tokens, D text width, T noise levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.geometry import scale_semantics
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.noise import RandomStreams

LEVELS = 10
TIMES = tuple((k + 0.5) / LEVELS for k in range(LEVELS))
"""Middles of ten equal parts of [0, 1]: every time stands for as much of the training."""


@torch.inference_mode()
def errors_of_stage_b(
    pipeline: Pipeline,
    latent: Tensor,
    semantics: Tensor,
    captions: Sequence[str],
    draw: RandomStreams,
) -> Tensor:
    """(B, T) mean squared errors of the noise that Stage B sees in (B, 4, H/4, W/4) latents.

    semantics  (B, S, h, w), unscaled
    """
    text = pipeline.encode(pipeline.text_b, captions)
    size = (latent.shape[2], latent.shape[3])
    kind = next(pipeline.stage_b.parameters()).dtype
    condition = pipeline.stage_b.condition(semantics.to(kind), text.to(kind), size)
    return _errors(diffusion.unguided(pipeline.stage_b, condition), latent, draw)


@torch.inference_mode()
def errors_of_stage_c(
    pipeline: Pipeline, semantics: Tensor, captions: Sequence[str], draw: RandomStreams
) -> Tensor:
    """(B, T) mean squared errors of the noise that Stage C sees in (B, S, h, w) semantics."""
    text = pipeline.encode(pipeline.text_c, captions)
    scaled = scale_semantics(semantics)
    condition = pipeline.stage_c.condition(text.to(pipeline.dtype))
    return _errors(diffusion.unguided(pipeline.stage_c, condition), scaled, draw)


def guess_errors(variance: Tensor) -> list[float]:
    """T errors that are left to who knows of the data only mean and (C,) variance per channel.

    The best linear guess of the noise e in sqrt(s) x + sqrt(1 - s) e misses s v / (s v + 1 - s)
    of its variance, where v is that of the data x. A network that misses more has learned nothing.
    """
    shares = diffusion.alpha_bar(torch.tensor(TIMES, dtype=torch.float64))[:, None]  # (T, 1)
    left = shares * variance / (shares * variance + 1 - shares)  # (T, C)
    return [float(value) for value in left.mean(dim=1)]


def _errors(denoise: diffusion.Denoiser, data: Tensor, draw: RandomStreams) -> Tensor:
    data = data.float()
    noise = draw(data)  # the same at all levels, so that levels can be compared
    found = []
    for time in TIMES:
        t = torch.full((len(data),), time, device=data.device)
        told = denoise(diffusion.add_noise(data, noise, t), time)
        found.append((told.float() - noise).square().mean(dim=(1, 2, 3)))
    return torch.stack(found, dim=1).cpu()
