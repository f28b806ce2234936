"""One run of a stage down its times, with callers who look on, step in or stop it.

B pictures. With guidance the tensors that condition a stage hold 2 B rows: wanted, then unwanted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from wuerstchen.diffusion import Denoiser, Draw, Network, ddpm, guided, unguided
from wuerstchen.errors import ConfigError, WuerstchenError

OnStep = Callable[[str, int, int], None]
"""(stage, steps done, steps in all): progress. An error that it raises stops the run."""

Look = Callable[[int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(step, time it started from, tensors by name) to the tensors that shall be others from here."""

Condition = TypeVar("Condition")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told of each step."""

    on_step: OnStep | None = None
    look: Look | None = None
    names: Sequence[str] = ("latents",)
    """Tensors that `look` is shown: latents, and what conditions the stage."""


NOBODY = Watch()


def run(
    stage: str,
    network: Network[Condition],
    prepare: Callable[[Mapping[str, Tensor]], Condition],
    tensors: Mapping[str, Tensor],
    guidance: float | None,
    x: Tensor,
    times: Sequence[float],
    draw: Draw,
    watch: Watch,
) -> Tensor:
    """Denoise (B, C, H, W) noise x to the state at times[-1].

    stage     its name, for progress and errors
    prepare   tensors by name to the condition of the network
    guidance  scale, or None to leave guidance out

    Raises WuerstchenError where the result is not finite, ConfigError for a name in
    `watch.names` that the stage does not have.
    """
    check_names(stage, watch, tensors)

    def denoiser(tensors: Mapping[str, Tensor]) -> Denoiser:
        condition = prepare(tensors)
        if guidance is None:
            return unguided(network, condition)
        return guided(network, condition, guidance)

    current = denoiser(tensors)

    def denoise(x: Tensor, t: float) -> Tensor:
        return current(x, t)  # not always the same one: a callback may change what conditions it

    for step, state in enumerate(ddpm(denoise, x, times, draw)):
        x = state
        if watch.look is not None:
            known = {"latents": x, **tensors}
            answer = watch.look(step, times[step], {name: known[name] for name in watch.names})
            others = {k: v for k, v in (answer or {}).items() if v is not known.get(k)}
            if "latents" in others:
                x.copy_(others.pop("latents"))  # in place: the sampler goes on from this tensor
            if others:
                tensors = {**tensors, **others}
                current = denoiser(tensors)
        if watch.on_step is not None:
            watch.on_step(stage, step + 1, len(times) - 1)
    return finite(stage, x)


def check_names(stage: str, watch: Watch, known: Iterable[str]) -> None:
    """Raise ConfigError for a name in `watch.names` that is neither known nor `latents`."""
    shown = ["latents", *known]
    for name in watch.names:
        if name not in shown:
            raise ConfigError(
                f"A callback of {stage} can be given {', '.join(shown)}, found {name!r}."
            )


def finite(stage: str, x: Tensor) -> Tensor:
    """x, or an error that names the stage which made it."""
    if not bool(torch.isfinite(x).all()):
        raise WuerstchenError(
            f"Expected finite numbers from {stage}, found NaN or infinity; its weights are damaged "
            "or overflow in this precision: load the model anew with torch_dtype=torch.float32."
        )
    return x
