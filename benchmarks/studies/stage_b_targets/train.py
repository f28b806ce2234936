"""Train a Stage B on cached encodings, and sample from it."""

from collections.abc import Iterator
from math import cos, pi

import torch
from torch import Tensor

from benchmarks.studies.stage_b_targets.encoded import EncodedSplit
from benchmarks.studies.stage_b_targets.muon import Muon, is_matrix
from benchmarks.studies.stage_b_targets.network import Network, StudyConfig
from benchmarks.studies.stage_b_targets.objective import (
    Objective,
    loss_of,
    noise_of,
    training_times,
)
from wuerstchen import diffusion
from wuerstchen.geometry import SEMANTICS_SCALE, scale_semantics, unscale_semantics
from wuerstchen.training.ema import EMA

NOISED_SEMANTICS, DROPPED_SEMANTICS, MAX_NOISE_TIME = 0.3, 0.05, 0.5
"""The defaults of Stage B's training."""

NOISE_SEED = 1
"""Seed of all sampling."""


def train(
    network: Network,
    objective: Objective,
    config: StudyConfig,
    data: EncodedSplit,
    latents: Tensor,
) -> Iterator[float]:
    """Train, and yield the loss of every step; at the end `network` has the EMA weights.

    latents  those of `data`, possibly scaled
    """
    optimizers = _optimizers(network, config)
    ema = EMA(network, (config.ema,))
    generator = torch.Generator().manual_seed(config.seed)
    steps = config.images // config.batch
    network.train()
    for step in range(steps):
        rate = config.rate * min(1, (step + 1) / config.warmup)
        rate *= 0.01 + 0.99 * 0.5 * (1 + cos(pi * step / steps))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_factor"]
        rows = torch.randint(len(data), (config.batch,), generator=generator)
        loss = _loss(network, objective, latents[rows], data.semantics[rows], generator)
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if network.fixed_divisor is not None:
            network.fixed_divisor.restore()
        ema.update()
        yield float(loss.detach())
    network.load_state_dict(dict(ema.weights(0)), strict=False)
    network.eval()


def _optimizers(network: Network, config: StudyConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, or Muon for the matrices and AdamW for the rest."""
    mapper_rate = config.mapper_rate / SEMANTICS_SCALE
    lr_factors = {id(parameter): mapper_rate for parameter in network.mappers}
    if network.fixed_divisor is not None:
        lr_factors |= {id(each): network.fixed_divisor.lr_factor for each in network.head}
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            by_muon = config.muon and is_matrix(parameter)
            key = by_muon, lr_factors.get(id(parameter), 1.0)
            groups.setdefault(key, []).append(parameter)
    adamw_groups: list[dict[str, object]] = []
    muon_groups: list[dict[str, object]] = []
    for (by_muon, lr_factor), parameters in groups.items():
        if by_muon:
            muon_groups.append({"params": parameters, "lr_factor": lr_factor * config.muon_rate})
        else:
            adamw_groups.append({"params": parameters, "lr_factor": lr_factor})
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw_groups, lr=config.rate, betas=(0.9, 0.99), fused=True)
    ]
    return optimizers + ([Muon(muon_groups, lr=config.rate)] if muon_groups else [])


def _loss(
    network: Network,
    objective: Objective,
    latents: Tensor,
    semantics: Tensor,
    generator: torch.Generator,
) -> Tensor:
    count = len(latents)
    uniform, other, noised, dropped, late = torch.rand(5, count, generator=generator)
    normal = torch.randn(count, generator=generator)
    t = training_times(objective, uniform, normal, other)
    x = diffusion.add_noise(latents, torch.randn(latents.shape, generator=generator), t)
    scaled = scale_semantics(semantics)
    noise = torch.randn(scaled.shape, generator=generator)
    noisy = unscale_semantics(diffusion.add_noise(scaled, noise, late * MAX_NOISE_TIME))
    semantics = torch.where((noised < NOISED_SEMANTICS).view(-1, 1, 1, 1), noisy, semantics)
    semantics = semantics.masked_fill((dropped < DROPPED_SEMANTICS).view(-1, 1, 1, 1), 0)
    return loss_of(objective, network(x, t, semantics), x, t, latents)


@torch.no_grad()
def sample(
    network: Network,
    objective: Objective,
    semantics: Tensor,
    size: int,
    sampler: str,
    spacing: str,
    steps: int,
) -> Tensor:
    """(B, 4, size, size) latents sampled from (B, D, h, w) semantics.

    sampler  a key of `diffusion.SAMPLERS`
    spacing  a key of `diffusion.TIMES`
    """
    generator = torch.Generator().manual_seed(NOISE_SEED)

    def denoise(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t)
        return noise_of(objective, network(x, times, semantics), x, times)

    def noise_like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator)

    start = torch.randn(len(semantics), 4, size, size, generator=generator)
    times = diffusion.TIMES[spacing](steps)
    *_, last = diffusion.SAMPLERS[sampler](denoise, start, times, noise_like)
    return last
