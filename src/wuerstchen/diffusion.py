"""All the mathematics of diffusion: schedule, noising, loss weight, guidance and samplers.

Time t is a float in [0, 1]: 0 is data, 1 is noise. signal(t), the paper's alpha-bar, is the share
of the variance that the data still has at time t. Networks predict the noise. B pictures, C
channels, H x W cells.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import pi
from typing import Protocol, TypeVar

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]
"""(noisy, t) to the noise in it."""

Draw = Callable[[Tensor], Tensor]
"""x to standard normal noise of its shape, from one stream per picture."""

Sampler = Callable[[Denoiser, Tensor, Sequence[float], Draw], Iterator[Tensor]]
"""Walks x down the times and yields every state on the way."""

OFFSET = 0.008
"""Keeps the first steps of the cosine schedule from being too small (arXiv:2102.09672, eq. 17)."""

LEAST, MOST = 0.0001, 0.9999
"""signal(t) is clamped to this range: t = 1 keeps a trace of data, t = 0 a trace of noise."""

STEEPEST = 10.0
"""Cap of `data_weight`, reached at t = 0.8."""

LATE = 0.6
"""Above this time the semantics of a picture are decided by its caption (docs/log.md)."""

Condition = TypeVar("Condition", contravariant=True)


class Network(Protocol[Condition]):
    """A stage as diffusion sees it: (noisy, (B,) times, condition) to the noise."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition, /) -> Tensor: ...


def signal(t: Tensor) -> Tensor:
    """Share of signal variance at times t: the cosine schedule (arXiv:2102.09672), clamped."""
    angle = (t + OFFSET) / (1 + OFFSET) * (pi / 2)
    start = torch.tensor(OFFSET / (1 + OFFSET) * (pi / 2), dtype=torch.float64).cos().square()
    return (angle.cos().square() / start.to(t)).clamp(LEAST, MOST)


def signal_at(t: float) -> float:
    """`signal` of one time, in double precision."""
    return float(signal(torch.tensor(t, dtype=torch.float64)))


def add_noise(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The state of `data` at (B,) times t: both shares together keep unit variance."""
    share = signal(t).view(-1, *(1 for _ in data.shape[1:]))  # (B, 1, 1, 1)
    return share.sqrt() * data + (1 - share).sqrt() * noise


def p2_weight(t: Tensor) -> Tensor:
    """Loss weight 1 / (1 + SNR) = 1 - signal(t) (arXiv:2204.00227 with k = gamma = 1).

    The paper prints (1 - signal) / (1 + signal); the code that trained the weights has this.
    """
    return 1 - signal(t)


def data_weight(t: Tensor) -> Tensor:
    """Loss weight (1 - signal) / signal: squared error of the data that the noise implies.

    At most `STEEPEST` times the p2 weight, which has it fade out where nearly all is noise. It
    makes a small model learn from its condition sooner than p2 does (docs/log.md).
    """
    return (1 - signal(t)) * (1 / signal(t)).clamp(max=STEEPEST)


def training_times(uniform: Tensor, late: float | None = None) -> Tensor:
    """(B,) uniform draws from [0, 1) to training times in [0.001, 1].

    About 7.5 % of them lie at exactly 1, so that the start of sampling is well trained.

    late  share of the times above `LATE`, in (0, 1); None: as published, about 45 %
    """
    published = 1 - (LATE - 0.001) / 1.08  # share of the draws whose time lies above LATE
    if late is not None:
        above = uniform * (published / late)
        below = published + (uniform - late) * ((1 - published) / (1 - late))
        uniform = torch.where(uniform < late, above, below)
    return (1.08 * (1 - uniform) + 0.001).clamp(0.001, 1)


def uniform_times(steps: int) -> list[float]:
    """`steps` + 1 evenly spaced times from 1 to 0."""
    return torch.linspace(1, 0, steps + 1).tolist()


def published_times() -> list[float]:
    """The released 29-evaluation list of Stage C: dense at high noise, coarse at low noise."""
    dense = torch.linspace(1, 2 / 3, 20, dtype=torch.float64)  # spacing 1/57
    coarse = torch.linspace(0.6, 0, 10, dtype=torch.float64)  # spacing 1/15
    return torch.cat([dense, coarse]).tolist()


def unguided(network: Network[Condition], condition: Condition) -> Denoiser:
    """The network's own prediction under `condition`."""

    def denoise(x: Tensor, t: float) -> Tensor:
        return network(x, x.new_full((len(x),), t), condition)

    return denoise


def guided(network: Network[Condition], condition: Condition, scale: float) -> Denoiser:
    """Classifier-free guidance (arXiv:2207.12598): 0 ignores the text, 1 follows, 4 insists.

    condition  of 2 B pictures: the wanted half first, then the unwanted (or empty) half
    """

    def denoise(x: Tensor, t: float) -> Tensor:
        noise = network(torch.cat([x, x]), x.new_full((2 * len(x),), t), condition)
        wanted, unwanted = noise.chunk(2)
        return torch.lerp(unwanted, wanted, scale)

    return denoise


def ddpm(denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw) -> Iterator[Tensor]:
    """Ancestral sampling (arXiv:2006.11239, algorithm 2).

    x      (B, C, H, W) standard normal noise, the state at times[0]
    times  falling values in [0, 1]
    """
    for t, s in pairwise(times):
        share_t, share_s = signal_at(t), signal_at(s)
        step = share_t / share_s
        x = (x - (1 - step) / (1 - share_t) ** 0.5 * denoise(x, t)) / step**0.5
        # Drawn at the last step too, where it goes unused: the stream then stays in step with
        # diffusers, whose scheduler does the same, and one seed gives one picture in both.
        noise = draw(x)
        if s > 0:
            x = x + ((1 - step) * (1 - share_s) / (1 - share_t)) ** 0.5 * noise
        yield x


def ddim(denoise: Denoiser, x: Tensor, times: Sequence[float], draw: Draw) -> Iterator[Tensor]:
    """Deterministic sampling (arXiv:2010.02502, equation 12 with eta = 0); `draw` is not used."""
    del draw
    for t, s in pairwise(times):
        share_t, share_s = signal_at(t), signal_at(s)
        noise = denoise(x, t)
        data = (x - (1 - share_t) ** 0.5 * noise) / share_t**0.5
        x = share_s**0.5 * data + (1 - share_s) ** 0.5 * noise if s > 0 else data
        yield x


LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {"p2": p2_weight, "data": data_weight}
SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim}
