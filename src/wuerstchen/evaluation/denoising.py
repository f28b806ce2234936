"""Denoising errors of Stages B and C by noise level.

B images, S semantic channels, h x w semantic cells, L tokens, D text width, T noise levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.geometry import scale_semantics
from wuerstchen.inference.cascade import Cascade
from wuerstchen.noise import RandomStreams

LEVELS = 10
TIMES = tuple((k + 0.5) / LEVELS for k in range(LEVELS))
"""Midpoints of ten equal intervals of [0, 1], from which training samples uniformly."""


@torch.inference_mode()
def denoising_errors_b(
    cascade: Cascade,
    latent: Tensor,
    semantics: Tensor,
    captions: Sequence[str],
    noise: RandomStreams,
) -> Tensor:
    """(B, T) mean squared errors of the noise that Stage B predicts in (B, 4, H/4, W/4) latents.

    semantics  (B, S, h, w), unscaled
    """
    text = cascade.encode(cascade.text_b, captions)
    size = (latent.shape[2], latent.shape[3])
    dtype = next(cascade.stage_b.parameters()).dtype
    condition = cascade.stage_b.condition(semantics.to(dtype), text.to(dtype), size)
    return _errors(diffusion.unguided(cascade.stage_b, condition), latent, noise)


@torch.inference_mode()
def denoising_errors_c(
    cascade: Cascade, semantics: Tensor, captions: Sequence[str], noise: RandomStreams
) -> Tensor:
    """(B, T) mean squared errors of the noise that Stage C predicts in (B, S, h, w) semantics."""
    text = cascade.encode(cascade.text_c, captions)
    scaled = scale_semantics(semantics)
    condition = cascade.stage_c.condition(text.to(cascade.dtype))
    return _errors(diffusion.unguided(cascade.stage_c, condition), scaled, noise)


def linear_baseline(variance: Tensor) -> list[float]:
    """T errors of the best linear estimator, which knows the (C,) variance of each channel.

    The best linear estimate of the noise e in sqrt(s) x + sqrt(1 - s) e misses s v / (s v + 1 - s)
    of its variance, where v is that of the data x. A network above this has learned nothing.
    """
    alpha_bar = diffusion.alpha_bar(torch.tensor(TIMES, dtype=torch.float64))[:, None]  # (T, 1)
    errors = alpha_bar * variance / (alpha_bar * variance + 1 - alpha_bar)  # (T, C)
    return [float(value) for value in errors.mean(dim=1)]


def _errors(denoise: diffusion.Denoiser, data: Tensor, noise: RandomStreams) -> Tensor:
    data = data.float()
    added = noise(data)  # the same at all levels, so that levels can be compared
    errors = []
    for time in TIMES:
        t = torch.full((len(data),), time, device=data.device)
        predicted = denoise(diffusion.add_noise(data, added, t), time)
        errors.append((predicted.float() - added).square().mean(dim=(1, 2, 3)))
    return torch.stack(errors, dim=1).cpu()
