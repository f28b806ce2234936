"""One run of a stage down its times, with callers who look on, step in or stop it.

B images. With guidance the tensors that condition a stage hold 2 B rows: wanted, then unwanted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from wuerstchen.diffusion import (
    SAMPLERS,
    Denoiser,
    Guidance,
    Network,
    NoiseSource,
    evaluations,
    guided,
    unguided,
)
from wuerstchen.errors import ConfigError
from wuerstchen.inference.nan_check import finite

OnStep = Callable[[str, int, int], None]
"""(stage, steps done, steps in all): progress. An error that it raises stops the run."""

Look = Callable[[int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(step, time it started from, tensors by name) to the tensors that shall be others from here."""

PROGRAMS = 32
"""Shapes for which a network is compiled: sizes, batches, and with guidance or without."""

MOST_PROGRAMS = 128
"""Those of all networks of a process."""

Condition = TypeVar("Condition")
Made = TypeVar("Made", covariant=True)


class Prepare(Protocol[Made]):
    """Tensors by name to the condition of the network."""

    def __call__(self, tensors: Mapping[str, Tensor], *, both: bool) -> Made:
        """both: of the wanted and the unwanted rows; of the wanted ones alone otherwise."""
        ...


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How a stage goes from noise to data."""

    times: list[float]
    """Falling, from 1 (noise) to 0 (data)."""
    sampler: str = "ddpm"
    """A name in `diffusion.SAMPLERS`."""
    guidance: Guidance = field(default_factory=Guidance)

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def evaluations(self) -> int:
        """Calls of the network: some samplers call it more than once a step."""
        return evaluations(self.sampler, self.times)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told of each step."""

    on_step: OnStep | None = None
    look: Look | None = None
    names: Sequence[str] = ("latents",)
    """Tensors that `look` is shown: latents, and what conditions the stage."""


NOBODY = Watch()


@dataclass(frozen=True, kw_only=True)
class Runner(Generic[Condition]):
    """A stage that can be run."""

    stage: str
    """Its name, for progress and errors."""
    network: nn.Module
    forward: Network[Condition]
    """The network, or what a compiler made of it."""
    prepare: Prepare[Condition]

    def denoiser(
        self, tensors: Mapping[str, Tensor], walk: Walk, *, plain: bool = False
    ) -> Denoiser:
        """plain: by the network as it is and not as it was compiled."""
        forward: Network[Condition] = self.network if plain else self.forward
        guidance = walk.guidance
        if not guidance.active:
            return unguided(forward, self.prepare(tensors, both=False))
        both = self.prepare(tensors, both=True)
        # The last time counts too: some samplers look at the end of a step, unless it is 0.
        everywhere = all(guidance.scale_at(t) is not None for t in walk.times if t > 0)
        wanted = both if everywhere else self.prepare(tensors, both=False)
        return guided(forward, both, wanted, guidance)

    def run(
        self, tensors: Mapping[str, Tensor], walk: Walk, x: Tensor, draw: NoiseSource, watch: Watch
    ) -> Tensor:
        """Denoise (B, C, H, W) noise x to the state at the last time.

        Raises WuerstchenError where a result is not finite, ConfigError for a name in
        `watch.names` that the stage does not have.
        """
        check_names(self.stage, watch, tensors)
        known = dict(tensors)
        current = self.denoiser(known, walk)

        def denoise(x: Tensor, t: float) -> Tensor:
            # Not always the same denoiser: a callback may change what conditions it.
            return finite(
                self.stage,
                self.network,
                current(x, t),
                lambda: self.denoiser(known, walk, plain=True)(x, t),
            )

        for step, state in enumerate(SAMPLERS[walk.sampler](denoise, x, walk.times, draw)):
            x = state
            if watch.look is not None:
                others = _changes(watch, step, walk.times[step], x, known)
                if "latents" in others:
                    x.copy_(others.pop("latents"))  # in place: the sampler goes on from it
                if others:
                    known |= others
                    current = self.denoiser(known, walk)
            if watch.on_step is not None:
                watch.on_step(self.stage, step + 1, walk.steps)
        return x


def check_names(stage: str, watch: Watch, known: Iterable[str]) -> None:
    """Raise ConfigError for a name in `watch.names` that is neither known nor `latents`."""
    shown = ["latents", *known]
    for name in watch.names:
        if name not in shown:
            raise ConfigError(
                f"A callback of {stage} can be given {', '.join(shown)}, found {name!r}."
            )


def _changes(
    watch: Watch, step: int, t: float, x: Tensor, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What the callback gave back changed."""
    assert watch.look is not None
    known = {"latents": x, **tensors}
    answer = watch.look(step, t, {name: known[name] for name in watch.names})
    return {name: value for name, value in (answer or {}).items() if value is not known.get(name)}


def compiled(network: nn.Module, settled: Callable[[], bool]) -> Callable[..., Tensor]:
    """The network's step as one compiled graph, and as a CUDA graph where there is CUDA.

    settled  whether weights stay where they are, without which there is no CUDA graph

    One program for each shape and device of the state, up to `PROGRAMS`; what is beyond runs as
    it is.
    """
    # torch counts the programs of all networks together, and raises at the ninth.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_PROGRAMS)
    plain = torch.compile(network, fullgraph=True, dynamic=False)
    captured = torch.compile(network, fullgraph=True, dynamic=False, mode="reduce-overhead")
    known: set[tuple[torch.Size, torch.device, bool]] = set()

    def call(x: Tensor, *others: object) -> Tensor:
        # Asked at every call: the network may have moved since it was compiled.
        capture = x.is_cuda and settled()
        program = (x.shape, x.device, capture)
        if program not in known and len(known) == PROGRAMS:
            made: Tensor = network(x, *others)
            return made
        known.add(program)
        torch.compiler.cudagraph_mark_step_begin()
        # A CUDA graph writes every result to the same place: keep this one from the next.
        result: Tensor = (captured if capture else plain)(x, *others).clone()
        return result

    return call
