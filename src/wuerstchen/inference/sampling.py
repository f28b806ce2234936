"""Sampling one stage over its times, with callers who watch, change or stop it.

B images. With guidance the tensors that condition a stage have 2 B rows: positive, then negative.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from wuerstchen import diffusion
from wuerstchen.diffusion import Denoiser, Guidance, Network, NoiseSource
from wuerstchen.errors import ConfigError
from wuerstchen.inference.nan_check import finite
from wuerstchen.inference.settings import StageSettings
from wuerstchen.inference.source_data import SourceData

OnStep = Callable[[str, int, int], None]
"""(stage, steps done, total steps): progress. An error that it raises stops the generation."""

OnStepEnd = Callable[[int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(step, time at its start, tensors by name) to the tensors to replace from here on."""

PROGRAMS, MOST_PROGRAMS = 32, 128
"""Shapes for which a network, and all of a process, are compiled: size, batch, guidance or not."""

Condition = TypeVar("Condition")
Made = TypeVar("Made", covariant=True)


class Prepare(Protocol[Made]):
    """Tensors by name to the condition of the network."""

    def __call__(self, tensors: Mapping[str, Tensor], *, both: bool) -> Made:
        """both: of the positive and the negative rows; otherwise of the positive ones alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """How a stage is sampled."""

    times: list[float]
    """Falling, from 1 (noise) to 0 (data)."""
    sampler: str = "ddpm"
    """A name in `diffusion.SAMPLERS`."""
    guidance: Guidance = field(default_factory=Guidance)

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    def below(self, t: float) -> "SamplingPlan":
        """The steps that start at time t or below it: the first one starts there."""
        return replace(self, times=[t, *(time for time in self.times if time < t)])

    @property
    def evaluations(self) -> int:
        """Calls of the network: some samplers call it more than once a step."""
        return diffusion.evaluations(self.sampler, self.times)

    @property
    def settings(self) -> StageSettings:
        """The settings that lead to this plan with any model."""
        return StageSettings(
            timesteps=self.times,
            sampler=self.sampler,
            guidance_scale=self.guidance.scale,
            guidance_interval=self.guidance.interval,
            guidance_rescale=self.guidance.rescale,
            guidance_end=self.guidance.end,
        )


@dataclass(frozen=True, kw_only=True)
class StepCallbacks:
    """Functions that are called after each step."""

    on_step: OnStep | None = None
    on_step_end: OnStepEnd | None = None
    names: Sequence[str] = ("latents",)
    """Tensors that `on_step_end` receives: latents, and what conditions the stage."""

    def check(self, stage: str, known: Iterable[str]) -> None:
        """Raise ConfigError for one of `names` that is neither known nor `latents`."""
        allowed = ["latents", *known]
        for name in self.names:
            if name not in allowed:
                raise ConfigError(
                    f"A callback of {stage} can be given {', '.join(allowed)}, found {name!r}."
                )

    def changes(self, step: int, t: float, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that `on_step_end` replaced."""
        if self.on_step_end is None:
            return {}
        answer = self.on_step_end(step, t, {name: tensors[name] for name in self.names}) or {}
        return {name: value for name, value in answer.items() if value is not tensors.get(name)}


NO_CALLBACKS = StepCallbacks()


@dataclass(frozen=True)
class StageSampler(Generic[Condition]):
    """A stage that can be sampled."""

    stage: str
    """Its name, for progress and errors."""
    network: nn.Module
    forward: Network[Condition]
    """The network, or what a compiler made of it."""
    prepare: Prepare[Condition]

    def denoiser(
        self, tensors: Mapping[str, Tensor], plan: SamplingPlan, *, plain: bool = False
    ) -> Denoiser:
        """plain: call the network itself, not its compiled version."""
        forward: Network[Condition] = self.network if plain else self.forward
        guidance = plan.guidance
        if not guidance.active:
            return diffusion.unguided(forward, self.prepare(tensors, both=False))
        both = self.prepare(tensors, both=True)
        # The last time counts too: some samplers evaluate the end of a step, unless it is 0.
        always = all(guidance.scale_at(t) is not None for t in plan.times if t > 0)
        positive = both if always else self.prepare(tensors, both=False)
        return diffusion.guided(forward, both, positive, guidance)

    def sample(
        self,
        tensors: Mapping[str, Tensor],
        plan: SamplingPlan,
        x: Tensor,
        randn: NoiseSource,
        callbacks: StepCallbacks,
        source: SourceData | None = None,
    ) -> Tensor:
        """Denoise (B, C, H, W) noise x to the state at the last time.

        source  data to start from in place of noise, with the steps that its strength leaves

        Raises WuerstchenError for a result that is not finite, ConfigError for unknown names.
        """
        callbacks.check(self.stage, tensors)
        known = dict(tensors)
        current = self.denoiser(known, plan)

        def denoise(x: Tensor, t: float) -> Tensor:
            # Not always the same denoiser: a callback may change what conditions it.
            def again() -> Tensor:
                return self.denoiser(known, plan, plain=True)(x, t)

            return finite(self.stage, self.network, current(x, t), again)

        noise = x
        if source is not None:
            plan, x = plan.below(source.strength), source.start(noise)
        states = diffusion.SAMPLERS[plan.sampler](denoise, x, plan.times, randn)
        for step, x in enumerate(states):
            if source is not None:
                source.restore(x, noise, plan.times[step], plan.times[step + 1])
            changes = callbacks.changes(step, plan.times[step], {"latents": x, **known})
            if "latents" in changes:
                x.copy_(changes.pop("latents"))  # in place: the sampler continues from it
            if changes:
                known |= changes
                current = self.denoiser(known, plan)
            if callbacks.on_step is not None:
                callbacks.on_step(self.stage, step + 1, plan.steps)
        return x


def compiled(network: nn.Module, settled: Callable[[], bool]) -> Callable[..., Tensor]:
    """The network's step as one compiled graph, and as a CUDA graph where there is CUDA.

    settled  whether weights keep their place in memory, as a CUDA graph requires

    One program for each shape and device of the state, up to `PROGRAMS`; others run uncompiled.
    """
    # torch counts the programs of all networks together, and raises at the ninth.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_PROGRAMS)
    plain = torch.compile(network, fullgraph=True, dynamic=False)
    captured = torch.compile(network, fullgraph=True, dynamic=False, mode="reduce-overhead")
    known: set[tuple[torch.Size, torch.device, bool]] = set()

    def call(x: Tensor, *others: object) -> Tensor:
        # Checked at every call: the network may have moved since it was compiled.
        capture = x.is_cuda and settled()
        program = (x.shape, x.device, capture)
        if program not in known and len(known) == PROGRAMS:
            return network(x, *others)  # type: ignore[no-any-return]
        known.add(program)
        torch.compiler.cudagraph_mark_step_begin()
        # A CUDA graph writes every result to the same place: keep this one from the next.
        result: Tensor = (captured if capture else plain)(x, *others).clone()
        return result

    return call
