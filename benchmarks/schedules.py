"""Sampling schedules: how many calls of each network an image takes."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.peers import PEERS
from wuerstchen.diffusion import SAMPLERS
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.model_info import ModelInfo
from wuerstchen.inference.sampling import SamplingPlan


class Schedule(NamedTuple):
    """Network evaluations for one image."""

    name: str
    guided: int
    """Of Stage C with guidance (two rows); of a peer, its steps."""
    unguided: int
    """Of Stage C without guidance (one row)."""
    decoder: int
    """Of Stage B, without guidance, the default of both systems."""
    own: bool = False
    """Whether these are our defaults, with their own sampler."""

    @property
    def work(self) -> tuple[int, int, int]:
        """The evaluations without the name."""
        return self.guided, self.unguided, self.decoder


class Calls(NamedTuple):
    """`times` calls of one network."""

    times: int
    part: str
    call: str
    rows: int


SIXTY = Schedule("60 + 12", 60, 0, 12)
"""The defaults of diffusers' pipeline."""
TWENTY_NINE = Schedule("29 + 12", 29, 0, 12)
"""With the published timesteps of Stage C."""
FIFTY = Schedule("50", 50, 0, 0)
"""The defaults of diffusers' pipelines for both peers, with guidance."""
TWENTY_FIVE = Schedule("25", 25, 0, 0)
"""With a multistep solver, a common choice for the peers."""


def our_defaults() -> Schedule:
    """The defaults for a published model."""
    planned = plan_generation(ModelInfo())
    guided, unguided = evaluations(planned.prior)
    decoder = sum(evaluations(planned.decoder))
    return Schedule(f"{guided + unguided} + {decoder}", guided, unguided, decoder, own=True)


def evaluations(sampling: SamplingPlan) -> tuple[int, int]:
    """Network evaluations with and without guidance, counted with a network that does nothing."""
    guided: list[bool] = []

    def denoise(x: Tensor, t: float) -> Tensor:
        guided.append(sampling.guidance.scale_at(t) is not None)
        return x

    for _ in SAMPLERS[sampling.sampler](
        denoise, torch.ones(1, 1, 1, 1), sampling.times, torch.randn_like
    ):
        pass
    return sum(guided), len(guided) - sum(guided)


def network_calls(system: str, schedule: Schedule, batch: int = 1) -> list[Calls]:
    """The calls for a batch of images. Text encoders are excluded for all systems."""
    if system in PEERS:
        return [Calls(schedule.guided, "unet", "step", 2 * batch), Calls(1, "vae", "step", batch)]
    calls = [
        Calls(schedule.guided, "stage_c", "step", 2 * batch),
        Calls(schedule.unguided, "stage_c", "step", batch),
        Calls(schedule.decoder, "stage_b", "step", batch),
        Calls(1, "stage_a", "step", batch),
    ]
    if system == "ours":
        rows = 2 * batch if schedule.guided else batch
        calls.append(Calls(1, "stage_c", "prepare", rows))
        calls.append(Calls(1, "stage_b", "prepare", batch))
    return [calls for calls in calls if calls.times]
