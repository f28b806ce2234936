"""Whether images of a size can fit into memory, estimated before any work.

The estimate is what one evaluation of a stage holds at once, measured by tracing the networks
without content from 512 to 16384 pixels, as their test does: proportional to the cells and
the width of the stage's largest maps. It leaves out weights and what does not grow with the size,
so it is a lower bound: what it refuses cannot fit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from wuerstchen.errors import WuerstchenError
from wuerstchen.geometry import latent_size, semantics_size
from wuerstchen.hardware import available_memory, shown_bytes
from wuerstchen.inference.cascade import Cascade
from wuerstchen.inference.generation_plan import GenerationPlan

MAPS_A, MAPS_B, MAPS_C = 16, 8, 9
"""Maps of a stage that exist at once; measured 18, 9.2 and 10.0."""

NUMBERS_A = 6
"""Numbers per pixel of an image that is decoded in strips: these and their sum; measured 7.5."""

NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
"""torch's messages where it has no error class for a lack of memory, as on the CPU."""


def needed_memory(
    cascade: Cascade, plan: GenerationPlan, count: int, *, prior: bool
) -> dict[str, int]:
    """Bytes that each stage needs at least for `count` images at once, by its name.

    prior  whether Stage C runs; stages that were compiled are left out, since they hold less
    """
    height, width = plan.size
    rows, columns = latent_size(height, width)
    b, c, a = cascade.stage_b.config, cascade.stage_c.config, cascade.stage_a.config
    of_c, of_b = (2 if stage.guidance.active else 1 for stage in (plan.prior, plan.decoder))
    found = {}
    if prior and not cascade.compiled:
        cells = semantics_size(height, width)
        found["Stage C"] = MAPS_C * of_c * cells[0] * cells[1] * c.width * _bytes(cascade.stage_c)
    if not cascade.compiled:
        cells_b = (rows // b.patch) * (columns // b.patch)
        found["Stage B"] = MAPS_B * of_b * cells_b * b.widths[0] * _bytes(cascade.stage_b)
    if cascade.strip_rows(rows, columns) < rows:
        found["Stage A"] = NUMBERS_A * height * width * _bytes(cascade.stage_a)
    else:
        found["Stage A"] = MAPS_A * rows * columns * a.width * _bytes(cascade.stage_a)
    return {stage: count * size for stage, size in found.items()}


def check_memory(cascade: Cascade, plan: GenerationPlan, count: int, *, prior: bool = True) -> None:
    """Raise WuerstchenError for images that cannot fit; arguments as above."""
    available = available_memory(cascade.device)
    if available is None:
        return
    needed = needed_memory(cascade, plan, count, prior=prior)
    stage = max(needed, key=lambda name: needed[name])
    if needed[stage] > available:
        raise WuerstchenError(
            f"{_too_large(plan, count)}: {stage} needs at least {shown_bytes(needed[stage])}, and "
            f"{shown_bytes(available)} are available; {ADVICE}"
        )


@contextmanager
def memory_errors(plan: GenerationPlan, count: int) -> Iterator[None]:
    """Turn a lack of memory into a WuerstchenError of one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
            words in str(error) for words in NO_MEMORY
        ):
            raise
        raise WuerstchenError(f"{_too_large(plan, count)}; {ADVICE}") from error


ADVICE = "request a smaller size, or fewer of them."


def _too_large(plan: GenerationPlan, count: int) -> str:
    height, width = plan.size
    return f"Not enough memory for images of {width} x {height} pixels, {count} at once"


def _bytes(network: nn.Module) -> int:
    """Of a number in the network's dtype; the least where weights are loaded for each use."""
    parameter = next(network.parameters())
    return 2 if parameter.is_meta else parameter.element_size()
