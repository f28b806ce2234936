"""Which kind of number each part works in."""

from collections.abc import Mapping

import torch

from wuerstchen.errors import ConfigError
from wuerstchen.weights import ComponentName

DRAWING: tuple[ComponentName, ...] = ("stage_a", "stage_b", "stage_c", "text_b", "text_c")

KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

OVERFLOWING: tuple[ComponentName, ...] = ("stage_c",)
"""Parts whose maps outgrow fp16 (65,504) at the published size: images came out black."""


def precisions(
    wanted: torch.dtype | Mapping[ComponentName, torch.dtype] | None,
) -> dict[ComponentName, torch.dtype]:
    """The type of each part. One type stands for all; a part that is not named is in fp32.

    Where fp16 is asked for all, what overflows in it stays in fp32. Inside of every part the sums
    that are too large or too fine for half precision are taken in fp32 anyway.

    Raises ConfigError for other types and unknown parts.
    """
    if isinstance(wanted, Mapping):
        unknown = sorted(set(wanted) - set(DRAWING))
        if unknown:
            raise ConfigError(
                f"torch_dtype names parts out of {', '.join(DRAWING)}, found {unknown[0]!r}."
            )
        chosen = {part: wanted.get(part, torch.float32) for part in DRAWING}
    else:
        chosen = dict.fromkeys(DRAWING, wanted or torch.float32)
        if wanted is torch.float16:
            chosen |= dict.fromkeys(OVERFLOWING, torch.float32)
    for part, dtype in chosen.items():
        if dtype not in KINDS:
            raise ConfigError(
                f"torch_dtype must be one of {', '.join(map(str, KINDS))}, found {dtype} for "
                f"{part}."
            )
    return chosen
