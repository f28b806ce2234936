"""How many evaluations of which network make an image: the one place that counts them."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.peers import PEERS
from wuerstchen.diffusion import SAMPLERS
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.model_info import ModelInfo
from wuerstchen.inference.sampling import SamplingPlan


class Schedule(NamedTuple):
    """Evaluations for one image."""

    name: str
    guided: int
    """Of Stage C with guidance (two rows); of a peer, its steps."""
    unguided: int
    """Of Stage C without guidance (one row)."""
    decoder: int
    """Of Stage B, without guidance, which both systems leave off by default."""
    own: bool = False
    """Whether these are the defaults of ours, with a sampler of its own choice."""

    @property
    def work(self) -> tuple[int, int, int]:
        """What it costs, whatever it is called."""
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
"""With the published list of times for Stage C."""
FIFTY = Schedule("50", 50, 0, 0)
"""The defaults of diffusers' pipelines for both peers; guidance is on."""
TWENTY_FIVE = Schedule("25", 25, 0, 0)
"""With a multistep solver, as many users of the peers draw."""


def our_defaults() -> Schedule:
    """What a published model does by default."""
    planned = plan_generation(ModelInfo())
    guided, unguided = evaluations(planned.prior)
    decoder = sum(evaluations(planned.decoder))
    return Schedule(f"{guided + unguided} + {decoder}", guided, unguided, decoder, own=True)


def evaluations(walk: SamplingPlan) -> tuple[int, int]:
    """How often a way from noise to data asks the network with guidance, and without.

    Counted by going it with a network that does nothing.
    """
    call: list[bool] = []

    def denoise(x: Tensor, t: float) -> Tensor:
        call.append(walk.guidance.scale_at(t) is not None)
        return x

    for _ in SAMPLERS[walk.sampler](denoise, torch.ones(1, 1, 1, 1), walk.times, torch.randn_like):
        pass
    return sum(call), len(call) - sum(call)


def network_calls(system: str, schedule: Schedule, batch: int = 1) -> list[Calls]:
    """The calls that make `batch` images at once. Text encoders are left out for all systems."""
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
