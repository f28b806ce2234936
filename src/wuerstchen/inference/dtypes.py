"""The dtype of each component in inference."""

from collections.abc import Mapping

import torch

from wuerstchen.errors import ConfigError
from wuerstchen.weights.layout import REQUIRED, ComponentName

Dtypes = torch.dtype | Mapping[ComponentName, torch.dtype]
"""One for all components, or by component."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

OVERFLOWING: tuple[ComponentName, ...] = ("stage_c",)
"""Components whose maps exceed fp16 (65,504) at the published size: images came out black."""


def component_dtypes(requested: Dtypes | None) -> dict[ComponentName, torch.dtype]:
    """The dtype of each component; one that is not named has fp32.

    Where fp16 is requested for all, what overflows in it stays in fp32. Raises ConfigError for
    other dtypes and unknown components.
    """
    if isinstance(requested, Mapping):
        if unknown := sorted(set(requested) - set(REQUIRED)):
            known = ", ".join(REQUIRED)
            raise ConfigError(f"torch_dtype must name some of {known}, found {unknown[0]!r}.")
        chosen = {name: requested.get(name, torch.float32) for name in REQUIRED}
    else:
        chosen = dict.fromkeys(REQUIRED, requested or torch.float32)
        if requested is torch.float16:
            chosen |= dict.fromkeys(OVERFLOWING, torch.float32)
    for name, dtype in chosen.items():
        if dtype not in DTYPES:
            known = ", ".join(map(str, DTYPES))
            raise ConfigError(f"torch_dtype must be one of {known}, found {dtype} for {name}.")
    return chosen


def precise(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself, at least fp32: of states of a sampler, and of the compressor, whose
    results are not refined by any step."""
    return torch.promote_types(dtype, torch.float32)
